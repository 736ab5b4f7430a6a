"""Import the libraries of models in one thread alone, before any thread uses one of them.

Steps run as threads. While one imports transformers, which replaces its own module meanwhile, another that imports it
gets the module of before ("cannot import name 'AutoConfig'"), and datasets, which looks for torch and transformers
among the loaded modules, uses them half made. Once they are there, their names may be imported anywhere.
"""

import threading
from collections.abc import Collection
from contextlib import suppress
from importlib import import_module

_importing = threading.Lock()


def import_transformers() -> None:
    """Call it before `from transformers import` in a function that may be the first to do so."""
    with _importing:
        import_module("transformers")


def import_for_step(libraries: Collection[str]) -> None:
    """Call it before a step of these libraries: nothing, unless transformers is among them.

    All that such steps import is imported, whatever else they declare: another step may be using it already.
    """
    if "transformers" not in libraries:
        return
    with _importing, suppress(ModuleNotFoundError):  # the step says which extra it needs
        for name in ("torch", "datasets", "transformers"):
            import_module(name)
        from transformers import AutoConfig, AutoTokenizer  # noqa: F401  (loads the modules that define them)
