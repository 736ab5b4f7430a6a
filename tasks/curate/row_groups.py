"""Where the rows of a table are cut: into row groups of a file, and into pieces on their way to a worker and back.

Row groups are cut by rows and by bytes of text, so equal rows give equal cuts. Pieces travel as Arrow's own bytes, in
buffers that processes of a node share. Called by `tasks/curate/rows.py`, and by redaction and dedup in parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

GROUP_ROWS = 65_536
"""Rows of one Parquet row group."""
GROUP_BYTES = 1 << 26
"""Text of one row group; fewer rows where they are long."""


def texts_of(schema: pa.Schema) -> list[str]:
    """The columns of text."""
    return [field.name for field in schema if pa.types.is_string(field.type)]


def cut_groups(table: pa.Table, places: pa.Array | None) -> Iterator[tuple[int, int]]:
    """Begin and end of each row group: at most GROUP_ROWS rows, and at most GROUP_BYTES of text but for one row.

    Args:
        places: The order in which the rows are written; None for the table's own.
    """
    n_rows = table.num_rows
    if table.nbytes <= GROUP_BYTES:
        yield from ((start, min(start + GROUP_ROWS, n_rows)) for start in range(0, n_rows, GROUP_ROWS))
        return
    sizes = _text_bytes(table)
    ends = (sizes if places is None else sizes[places.to_numpy()]).cumsum()
    start = 0
    while start < n_rows:
        stop = _group_end(ends, start)
        yield start, stop
        start = stop


class RowGroups:
    """The same cuts of rows that come batch by batch: a group ends when the next row is known not to belong to it."""

    def __init__(self) -> None:
        self._held: list[pa.Table] = []
        self._sizes: list[Any] = []
        self._n_rows = self._n_bytes = 0

    def add(self, batch: pa.Table) -> Iterator[pa.Table]:
        """The groups that are whole with these rows."""
        sizes = _text_bytes(batch)
        self._held.append(batch)
        self._sizes.append(sizes)
        self._n_rows += batch.num_rows
        self._n_bytes += int(sizes.sum())
        if self._n_rows <= GROUP_ROWS and self._n_bytes <= GROUP_BYTES:
            return
        table, sizes = pa.concat_tables(self._held), np.concatenate(self._sizes)
        ends = sizes.cumsum()
        start = 0
        while (stop := _group_end(ends, start)) < table.num_rows:
            yield table.slice(start, stop - start)
            start = stop
        self._held, self._sizes, self._n_rows = [table.slice(start)], [sizes[start:]], table.num_rows - start
        self._n_bytes = int(self._sizes[0].sum())

    def rest(self) -> Iterator[pa.Table]:
        """The last group, where there is one."""
        if self._n_rows:
            yield pa.concat_tables(self._held)


def _text_bytes(table: pa.Table) -> Any:
    """Bytes of text of each row."""
    texts = [table.column(name) for name in texts_of(table.schema)]
    return sum(pc.fill_null(pc.binary_length(text), 0).to_numpy().astype("int64") for text in texts)


def _group_end(ends: Any, start: int) -> int:
    """Where the group that begins at `start` ends, from the running sum of bytes."""
    before = int(ends[start - 1]) if start else 0
    fits = int(ends.searchsorted(before + GROUP_BYTES, side="right"))
    return min(max(fits, start + 1), start + GROUP_ROWS, len(ends))


def packed(table: pa.Table) -> pa.Buffer:
    """The rows of a table, and nothing of what it was cut out of."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpacked(buffer: pa.Buffer) -> pa.Table:
    """The rows again, without copying them."""
    return pa.ipc.open_stream(buffer).read_all()


def row_ranges(n_rows: int, n_parts: int, *, at_least: int) -> list[tuple[int, int]]:
    """Begin and end of so many ranges of rows, fewer where they would hold less than `at_least`; one at least.

    >>> row_ranges(10, 3, at_least=1), row_ranges(10, 3, at_least=8), row_ranges(0, 3, at_least=1)
    ([(0, 4), (4, 8), (8, 10)], [(0, 8), (8, 10)], [(0, 0)])
    """
    length = max(at_least, -(-n_rows // n_parts), 1)
    return [(start, min(start + length, n_rows)) for start in range(0, max(n_rows, 1), length)]


def cut(batches: Iterable[pa.Table], ranges: Sequence[tuple[int, int]]) -> Iterator[pa.Table]:
    """The rows of a table that comes batch by batch, in these ranges, which follow each other; one range is held."""
    batches = iter(batches)
    held = next(batches)
    for start, stop in ranges:
        n_rows, several = stop - start, [held]
        while sum(table.num_rows for table in several) < n_rows:
            several.append(next(batches))
        held = pa.concat_tables(several)
        yield held.slice(0, n_rows)
        held = held.slice(n_rows)
