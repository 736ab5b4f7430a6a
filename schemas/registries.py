"""Modules that add kinds to `pipelines.yaml`, imported only when such a file is first read.

Otherwise `--help` would be slow. Every command imports this module, so it imports no other of this project.
"""

from importlib import import_module

_waiting: list[str] = []


def add_on_load(*registries: str) -> None:
    """Import these modules, or call `module:function`, in order, before the next pipeline file is read or its JSON
    Schema is generated."""
    _waiting.extend(registries)


def load_registries() -> None:
    """Import what was added. Called before reading anything that may use registered kinds."""
    while _waiting:
        module, _, function = _waiting[0].partition(":")
        imported = import_module(module)
        if function:
            getattr(imported, function)()
        _waiting.pop(0)  # only now, so that what failed is repeated
