"""Tables on their way from the step that wrote them to the step that reads them, while both run in one process.

A step reads what is in the file; where that is what this process has just written, and little, it is still here. Called
by `tasks/curate/rows.py`.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

HANDED_BYTES = 1 << 28
"""Of all tables that are held."""
_handed: dict[tuple[int, ...], pa.Table] = {}  # a file -> what was written to it, the oldest first


def hand(table: pa.Table, path: Path) -> None:
    """Hold the table for whoever reads the file first; the oldest ones go when it is too much."""
    _handed[_identity(path)] = table
    n_bytes = sum(held.nbytes for held in _handed.values())
    while n_bytes > HANDED_BYTES:
        n_bytes -= _handed.pop(next(iter(_handed))).nbytes


def take_handed(path: Path) -> pa.Table | None:
    """What was written to this file; it is held no longer."""
    return _handed.pop(_identity(path), None)


def look_at_handed(path: Path) -> pa.Table | None:
    """The same, and it is still held."""
    return _handed.get(_identity(path))


def _identity(path: Path) -> tuple[int, ...]:
    """The file itself, wherever it is moved to; another one when it is written anew."""
    told = path.stat()
    return told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns
