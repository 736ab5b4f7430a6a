"""Collects what extraction makes of batches: tickets as Arrow batches, and everyone else with place and reason.

It knows nothing of formats. Called by `tasks/curate/extract.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from tasks.curate.readers.columns import TicketMaker
from tasks.curate.readers.records import Batch, Fault
from tasks.curate.rows import TICKETS_ARROW

_SOURCE = TICKETS_ARROW.field("source")
_OFFSET = pa.field("byte_offset", pa.int64())


class Gathered:
    """Tickets and quarantined rows of one source; rows read = tickets + quarantined, always."""

    def __init__(self, maker: TicketMaker) -> None:
        self.n_rows = 0
        self.notes: dict[str, int] = {}
        self._maker = maker
        self._file: list[pa.Table] = []
        self._tables: list[pa.Table] = []
        self._removed: list[dict[str, object]] = []
        self._counts: Counter[str] = Counter()

    def read(self, name: str, prefix: str, batches: Iterable[Batch]) -> None:
        """Take in every row of one file or table.

        Args:
            name: Kept with the rows as their source.
            prefix: Of the ids made for its rows, if it has none.
        """
        self._maker.begin_file(name)
        self._counts["files"] += 1
        for batch in batches:
            self.n_rows += len(batch)
            for record in batch.faulty:
                if isinstance(record.content, Fault):
                    self._remove(record.content, name, record.line, record.offset, None)
            self._take(name, batch)
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

    def _take(self, name: str, batch: Batch) -> None:
        made = self._maker.make(batch)
        for index, fault in made.faults.items():
            offset = None if batch.offsets is None else int(batch.offsets[index])
            self._remove(fault, name, int(batch.lines[index]), offset, made.ids[index])
        n_rows = len(batch.rows)
        if n_rows == len(made.faults):
            return
        columns = {**made.columns, "source_line": pa.array(batch.lines)}
        if batch.offsets is not None:
            columns["byte_offset"] = pa.array(batch.offsets)
        table = pa.Table.from_arrays(list(columns.values()), names=list(columns))
        if made.faults:
            table = table.filter(pa.array([index not in made.faults for index in range(n_rows)], pa.bool_()))
        self._file.append(table)

    def _end_file(self, name: str, prefix: str) -> None:
        """Give ids to a file without any; in a file with ids, quarantine the rows that lack theirs."""
        if not self._file:
            return
        # Columns that some batches lack, ticket_id among them, are null there.
        table = _with_missing(pa.concat_tables(self._file, promote_options="default"))
        table = table.append_column(_SOURCE, pa.repeat(pa.scalar(name), table.num_rows))
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


def _with_missing(table: pa.Table) -> pa.Table:
    for field in (*TICKETS_ARROW, _OFFSET):
        if field.name not in table.column_names and field.name != _SOURCE.name:
            table = table.append_column(field.with_nullable(True), pa.nulls(table.num_rows, field.type))
    return table
