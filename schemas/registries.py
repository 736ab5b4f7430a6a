"""Modules that add kinds to what `pipelines.yaml` may say, imported when the first such file is read, not before.

`--help` must not pay for them. It imports nothing of ours: every command imports this module.
"""

from __future__ import annotations

from importlib import import_module

_modules: list[str] = []  # still to be imported


def add_on_load(module: str) -> None:
    """Import this module, which adds kinds, before the next pipeline is read or its JSON Schema made."""
    _modules.append(module)


def load_registries() -> None:
    """Import what was named and is not imported yet. Called before anything is read that may use registered kinds."""
    while _modules:
        import_module(_modules[-1])  # one that cannot be imported is tried again, not forgotten
        _modules.pop()
