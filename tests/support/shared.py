"""Things that all pytest-xdist workers share, made once."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.workspace.lock import hold


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder of this name, filled by the first worker; other workers wait and only read it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, incomplete = base / name, base / f"{name}.incomplete"
    with hold(base / f"{name}.lock"):
        if not folder.is_dir():
            shutil.rmtree(incomplete, ignore_errors=True)
            incomplete.mkdir(mode=0o700)
            make(incomplete)
            incomplete.rename(folder)
    return folder
