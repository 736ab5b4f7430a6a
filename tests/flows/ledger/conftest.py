"""An empty ledger, and steps shared with the processes of tests/system/flows/ledger."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from flows.ledger.ledger import Ledger
from tests.support import engine_process


@pytest.fixture(scope="session")
def kit() -> ModuleType:
    """The programs that other processes run."""
    return engine_process


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty ledger in a file; tests/system/flows/ledger repeats these tests on Postgres."""
    return Ledger(tmp_path / "home")


@pytest.fixture
def in_file(tmp_path: Path) -> Ledger:
    """An empty ledger in a file."""
    return Ledger(tmp_path / "home")


@pytest.fixture
def tree() -> Callable[[Path], dict[str, tuple[int, bytes]]]:
    """Snapshot a folder: path -> modification time and bytes; equal snapshots mean an untouched disk."""

    def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) if path.is_file() else (0, b"")
            for path in folder.rglob("*")
        }

    return tree
