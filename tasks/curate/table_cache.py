"""In-process cache of freshly written tables: a step that reads what the step before wrote need not decode the file.

It holds what this process has just written, up to a limit; everything else is read from disk. Called by
`tasks/curate/rows.py`.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

CACHED_BYTES = 1 << 28
"""Of all tables that are held."""
_tables: dict[tuple[int, ...], pa.Table] = {}  # a file -> what was written to it, the oldest first


def cache_table(table: pa.Table, path: Path) -> None:
    """Hold the table for the first reader of the file; the oldest ones go when it is too much."""
    _tables[_identity(path)] = table
    n_bytes = sum(held.nbytes for held in _tables.values())
    while n_bytes > CACHED_BYTES:
        n_bytes -= _tables.pop(next(iter(_tables))).nbytes


def take_cached(path: Path) -> pa.Table | None:
    """What was written to this file; it is held no longer."""
    return _tables.pop(_identity(path), None)


def peek_cached(path: Path) -> pa.Table | None:
    """The same, and it is still held."""
    return _tables.get(_identity(path))


def _identity(path: Path) -> tuple[int, ...]:
    """The file itself, wherever it is moved to; another one when it is written again."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
