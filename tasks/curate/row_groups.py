"""Cut the rows of a table into row groups of a file, and into pieces for workers.

Row groups are cut by rows and by bytes of text, so equal rows give equal cuts. Pieces are sent as Arrow's IPC bytes, in
buffers that processes of a node share.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

GROUP_ROWS = 65_536
"""Maximum rows of a Parquet row group."""
GROUP_BYTES = 1 << 26
"""Maximum bytes of text in a row group, except for a single longer row."""


def texts_of(schema: pa.Schema) -> list[str]:
    """Return the names of the text columns."""
    return [field.name for field in schema if pa.types.is_string(field.type)]


def cut_groups(table: pa.Table, places: pa.Array | None) -> Iterator[tuple[int, int]]:
    """Yield start and end of each row group: at most GROUP_ROWS rows, and GROUP_BYTES of text or one row.

    Args:
        places: Order in which the rows are written; None for the table's own.
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
    """Make the same cuts from batches: a group ends once the next row is known not to belong to it."""

    def __init__(self) -> None:
        self._held: list[pa.Table] = []
        self._sizes: list[Any] = []
        self._n_rows = self._n_bytes = 0

    def add(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield the groups that these rows complete."""
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
        """Yield the last group, if there is one."""
        if self._n_rows:
            yield pa.concat_tables(self._held)


def _text_bytes(table: pa.Table) -> Any:
    """Return the bytes of text of each row."""
    texts = [table.column(name) for name in texts_of(table.schema)]
    return sum(pc.fill_null(pc.binary_length(text), 0).to_numpy().astype("int64") for text in texts)


def _group_end(ends: Any, start: int) -> int:
    """Return the end of the group that begins at `start`, from the running sum of bytes."""
    before = int(ends[start - 1]) if start else 0
    fits = int(ends.searchsorted(before + GROUP_BYTES, side="right"))
    return min(max(fits, start + 1), start + GROUP_ROWS, len(ends))


def packed(table: pa.Table) -> pa.Buffer:
    """Return the rows of a table as bytes, without the rest of the table that it is a slice of."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpacked(buffer: pa.Buffer) -> pa.Table:
    """Return the rows of such bytes, without copying them."""
    return pa.ipc.open_stream(buffer).read_all()


def row_ranges(n_rows: int, n_parts: int, *, at_least: int) -> list[tuple[int, int]]:
    """Return start and end of `n_parts` ranges of rows, or fewer of at least `at_least` rows; at least one range.

    >>> row_ranges(10, 3, at_least=1), row_ranges(10, 3, at_least=8), row_ranges(0, 3, at_least=1)
    ([(0, 4), (4, 8), (8, 10)], [(0, 8), (8, 10)], [(0, 0)])
    """
    length = max(at_least, -(-n_rows // n_parts), 1)
    return [(start, min(start + length, n_rows)) for start in range(0, max(n_rows, 1), length)]


def cut(batches: Iterable[pa.Table], ranges: Sequence[tuple[int, int]]) -> Iterator[pa.Table]:
    """Yield the rows of batches in these consecutive ranges; memory holds one range."""
    batches = iter(batches)
    held = next(batches)
    for start, stop in ranges:
        n_rows, several = stop - start, [held]
        while sum(table.num_rows for table in several) < n_rows:
            several.append(next(batches))
        held = pa.concat_tables(several)
        yield held.slice(0, n_rows)
        held = held.slice(n_rows)
