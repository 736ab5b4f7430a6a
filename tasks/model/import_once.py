"""Import transformers in one thread alone.

Its package replaces its own module while it is imported. Steps run as threads, and one that imports it meanwhile gets
the module of before: "cannot import name 'AutoConfig'". Once the package is there, its names may be imported anywhere.
"""

import threading
from importlib import import_module

_importing = threading.Lock()


def import_transformers() -> None:
    """Call it before `from transformers import` in a function that may be the first to do so."""
    with _importing:
        import_module("transformers")
