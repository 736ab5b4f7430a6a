"""Modules that add kinds to `pipelines.yaml`, imported only when such a file is first read.

Otherwise `--help` would be slow. Every command imports this module, so it imports no other of this project.
"""

from importlib import import_module

_modules: list[str] = []  # still to be imported


def add_on_load(module: str) -> None:
    """Import this module before the next pipeline file is read or its JSON Schema is generated."""
    _modules.append(module)


def load_registries() -> None:
    """Import the added modules. Called before reading anything that may use registered kinds."""
    while _modules:
        import_module(_modules[-1])  # popped only after it was imported, so that a failed import is repeated
        _modules.pop()
