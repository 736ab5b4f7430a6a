"""A pytest plug-in that hides the packages of all extras but `train`: `pytest -p tests.support.without_extras`.

Tests of what only an extra does skip then; all others must pass. `make test-bare` runs them.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from tasks.extras import PACKAGES

BROUGHT = {*PACKAGES["endpoint"], "jsonschema", "lxml", "markdown_it"}
"""Brought by packages of the core anyway."""
HIDDEN = {name for names in PACKAGES.values() for name in names} - {*PACKAGES["train"], *BROUGHT}


class Hiding(PathFinder):
    """Finds none of the hidden packages."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in HIDDEN:
            return None
        return super().find_spec(fullname, path, target)


def pytest_load_initial_conftests() -> None:
    """Hide them, before anything of ours is imported; not on import, since doctests import this file, too."""
    sys.meta_path[:] = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
