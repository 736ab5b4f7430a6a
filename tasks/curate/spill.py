"""Sort more tickets than memory should hold: sorted parts in temporary files, merged into one order.

Merging holds a few hundred kilobytes of each part that can contain the next rows.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tasks.curate.rows import TICKETS_ARROW, sort_tickets

CHUNK_BYTES = 1 << 18
"""Bytes of a part that are read at a time, or one longer row."""


class SortedPart:
    """Sorted tickets in a file: written at once, read in chunks."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        self.path = path
        self.at_end = False
        self._next = 0
        self._held = TICKETS_ARROW.empty_table()
        self._reader: pa.RecordBatchFileReader | None = None
        table = sort_tickets(table)
        self.first: str = table.column("ticket_id")[0].as_py()
        self._chunk_rows = n_rows = max(1, table.num_rows * CHUNK_BYTES // max(1, table.nbytes))
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table.combine_chunks(), max_chunksize=n_rows)

    def chunks(self) -> Iterator[pa.Table]:
        """Yield all rows."""
        with pa.OSFile(str(self.path)) as stream:
            file = pa.ipc.open_file(stream)
            for number in range(file.num_record_batches):
                yield pa.Table.from_batches([file.get_batch(number)])

    def load(self, *, more: bool = False) -> bool:
        """Load rows until at least a chunk's are in memory, or one more chunk; return False if none is left.

        If a part were only read once its rows are used up, the few rows left of another would set the limit, and each
        round of the merge would yield only a few rows.
        """
        if not self.at_end and (more or self._held.num_rows < self._chunk_rows):
            if self._reader is None:
                self._reader = pa.ipc.open_file(pa.OSFile(str(self.path)))
            chunk = pa.Table.from_batches([self._reader.get_batch(self._next)]).select(TICKETS_ARROW.names)
            self._next += 1
            self._held = pa.concat_tables([self._held, chunk.cast(TICKETS_ARROW)])
            if self._next == self._reader.num_record_batches:
                self.at_end, self._reader = True, None
        return bool(self._held.num_rows)

    def last(self) -> str:
        """Return the greatest ticket_id in memory."""
        value: str = self._held.column("ticket_id")[-1].as_py()
        return value

    def take(self, limit: str | None) -> pa.Table:
        """Remove and return the rows with a smaller ticket_id; all for None."""
        n_rows = self._held.num_rows
        if limit is not None:
            n_rows = pc.sum(pc.less(self._held.column("ticket_id"), limit), min_count=0).as_py()
        taken, self._held = self._held.slice(0, n_rows), self._held.slice(n_rows)
        return taken


def merge_parts(parts: list[SortedPart]) -> Iterator[pa.Table]:
    """Yield all rows in the order of a file of tickets; each part can be merged once.

    Rows are yielded up to a limit below which none is unread: the last row in memory of a part, or a part's first row.
    """
    waiting = sorted(parts, key=lambda part: part.first, reverse=True)
    active: list[SortedPart] = []
    while active or waiting:
        limits = [part.last() for part in active if not part.at_end]
        limits += [part.first for part in waiting[-1:]]
        limit = min(limits) if limits else None
        taken = [table for part in active if (table := part.take(limit)).num_rows]
        if taken:
            yield taken[0] if len(taken) == 1 else sort_tickets(pa.concat_tables(taken))
        else:  # the rows of one ticket_id must meet before they are sorted
            for part in active:
                if not part.at_end and part.last() == limit:
                    part.load(more=True)
            if waiting and waiting[-1].first == limit:
                active.append(waiting.pop())
        active = [part for part in active if part.load()]
