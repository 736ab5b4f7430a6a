"""Rows of a table on their way to a worker and back: as Arrow's own bytes, in buffers that processes of a node share.

Called by the modules of `tasks/curate/parts/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa


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
