"""In-process cache of tables that were just written: a step that reads the previous step's file need not decode it.

It holds tables of this process up to a limit; everything else is read from disk.
"""

import threading
from pathlib import Path

import pyarrow as pa

CACHED_BYTES = 1 << 28
"""Maximum bytes of all cached tables."""
CACHED_TABLES = 64
"""Maximum number of tables, more than one run writes: what nothing reads would make each write slower."""
_tables: dict[tuple[int, ...], tuple[pa.Table, int]] = {}
"""File -> table and its bytes, oldest first. To count the bytes of a table with many columns takes a millisecond."""
_lock = threading.Lock()  # branches of a graph write side by side


def cache_table(table: pa.Table, path: Path) -> None:
    """Cache the table for the first reader of the file; remove the oldest ones beyond the limit."""
    with _lock:
        _tables[_identity(path)] = table, table.nbytes
        n_bytes = sum(held for _, held in _tables.values())
        while n_bytes > CACHED_BYTES or len(_tables) > CACHED_TABLES:
            _, removed = _tables.pop(next(iter(_tables)))
            n_bytes -= removed


def take_cached(path: Path) -> pa.Table | None:
    """Return the table written to this file, and remove it from the cache."""
    with _lock:
        return _tables.pop(_identity(path), (None, 0))[0]


def peek_cached(path: Path) -> pa.Table | None:
    """Return the table written to this file, and keep it in the cache."""
    return _tables.get(_identity(path), (None, 0))[0]


def _identity(path: Path) -> tuple[int, ...]:
    """Identify the file itself: the same after a move, another one after a write."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
