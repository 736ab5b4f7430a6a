"""Collects what extraction makes of records: tickets as Arrow batches, and everyone else with place and reason.

It knows nothing of formats. Called by `tasks/curate/extract.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from tasks.curate.readers.columns import TicketMaker
from tasks.curate.readers.records import Fault, Record
from tasks.curate.rows import TICKETS_ARROW

_BATCH_ROWS = 8192
_OFFSET = pa.field("byte_offset", pa.int64())
# ticket_id is null until the end of its file tells whether the file has ids at all.
_SCHEMA = pa.schema([field.with_nullable(True) for field in TICKETS_ARROW]).append(_OFFSET)


class Gathered:
    """Tickets and quarantined rows of one source; rows read = tickets + quarantined, always."""

    def __init__(self, maker: TicketMaker) -> None:
        self.n_rows = 0
        self.notes: dict[str, int] = {}
        self._maker = maker
        self._batch: list[dict[str, object]] = []
        self._file: list[pa.Table] = []
        self._tables: list[pa.Table] = []
        self._removed: list[dict[str, object]] = []
        self._counts: Counter[str] = Counter()

    def read(self, name: str, prefix: str, records: Iterable[Record]) -> None:
        """Take in every record of one file or table.

        Args:
            name: Kept with the rows as their source.
            prefix: Of the ids made for its rows, if it has none.
        """
        self._maker.begin_file(name)
        self._counts["files"] += 1
        for record in records:
            self.n_rows += 1
            made = self._maker.make(record)
            if isinstance(made, Fault):
                self._remove(made, name, record.line, record.offset, self._maker.identify(record))
                continue
            self._batch.append({**made, "source": name, "source_line": record.line, "byte_offset": record.offset})
            if len(self._batch) >= _BATCH_ROWS:
                self._flush()
        self._flush()
        self._end_file(name, prefix)

    def finish(self) -> None:
        """Collect the notes once everything is read; raises what `TicketMaker.finish` raises."""
        self.notes = {**self._counts, **self._maker.finish()}

    def tickets(self) -> pa.Table:
        """All tickets, in the order read."""
        return pa.concat_tables([TICKETS_ARROW.empty_table(), *self._tables])

    def quarantined(self) -> list[dict[str, object]]:
        """Rows for `removed.parquet`."""
        return self._removed

    def _flush(self) -> None:
        if self._batch:
            columns = {name: [row.get(name) for row in self._batch] for name in _SCHEMA.names}
            self._file.append(pa.table(columns, schema=_SCHEMA))
            self._batch = []

    def _end_file(self, name: str, prefix: str) -> None:
        """Give ids to a file without any; in a file with ids, quarantine the rows that lack theirs."""
        if not self._file:
            return
        table = pa.concat_tables(self._file)
        self._file = []
        ids = table.column("ticket_id")
        if ids.null_count == table.num_rows:
            lines = table.column("source_line").cast(pa.string())
            made = pc.binary_join_element_wise(pa.scalar(prefix), lines, "-")
            table = table.set_column(table.column_names.index("ticket_id"), TICKETS_ARROW.field("ticket_id"), made)
            self._counts["ids_made"] += table.num_rows
        elif ids.null_count:
            fault = Fault("TG0249", "The row has no ticket_id, others of its file do.", "ticket_id")
            for row in table.filter(pc.is_null(ids)).select(["source_line", "byte_offset"]).to_pylist():
                self._remove(fault, name, row["source_line"], row["byte_offset"], None)
            table = table.filter(pc.is_valid(ids))
        self._tables.append(table.select(TICKETS_ARROW.names).cast(TICKETS_ARROW))

    def _remove(self, fault: Fault, name: str, line: int, offset: int | None, ticket_id: str | None) -> None:
        self._removed.append(
            {
                "ticket_id": ticket_id,
                "outcome": "quarantined",
                "code": fault.code,
                "reason": fault.reason,
                "field": fault.field,
                "source": name,
                "source_line": line,
                "byte_offset": offset,
            }
        )
