"""Collect the results of extraction: tickets as Arrow batches, all other rows with place and reason.

More than some megabytes of tickets are spilled to files (`tasks/curate/spill.py`), so that memory stays flat.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tasks.curate.rows import TICKETS_ARROW, removed_table, write_ordered_tickets, write_tickets
from tasks.curate.spill import SortedPart, merge_parts
from tasks.privacy.hashes import Forgotten
from tasks.sources.readers.columns import Made, TicketMaker
from tasks.sources.readers.records import Fault, RowBatch

_SOURCE = TICKETS_ARROW.field("source")
_OFFSET = pa.field("byte_offset", pa.int64())


HELD_BYTES = 1 << 25
"""Bytes of tickets held in memory before they are spilled to a file."""
_HELD_REMOVED = 4096
FORGOTTEN = "forgotten"
"""Rule that drops the rows of forgotten customers."""
_LATER = Fault("after_as_of", "The customer wrote after the day of --as-of.", "created_at", outcome="dropped")
_UNDATED = Fault(
    "undated", "Without created_at it may have been written after that day.", "created_at", outcome="dropped"
)
_GONE = Fault(FORGOTTEN, "The customer was forgotten.", outcome="dropped")


class Gathered:
    """Tickets, quarantined and dropped rows of one source; rows read = tickets + quarantined + dropped, always.

    Args:
        maker: Makes tickets of rows.
        aside: An empty folder for tickets above `HELD_BYTES`; None: all are held.
        forgotten: Customers to drop before their rows are held or spilled.
        before: UTC without a zone; rows that were not created before this are dropped.
    """

    def __init__(
        self,
        maker: TicketMaker,
        *,
        aside: Path | None = None,
        forgotten: Forgotten | None = None,
        before: datetime | None = None,
    ) -> None:
        self.n_rows = 0
        self.n_dropped = 0
        self.n_undated = 0
        """Rows without created_at, if there is a `before`."""
        self._before = before
        self._forgotten = forgotten
        self.notes: dict[str, int] = {}
        self._maker = maker
        self._aside = aside
        self._parts: list[SortedPart] = []
        self._file: list[pa.Table] = []
        self._tables: list[pa.Table] = []
        self._n_held = 0
        self._has_ids = False
        self._guessed: list[SortedPart] = []
        self._n_files = 0
        self._removed: list[dict[str, object]] = []
        self._removed_tables: list[pa.Table] = []
        self._counts: Counter[str] = Counter()

    def read(self, name: str, prefix: str, batches: Iterable[RowBatch]) -> None:
        """Read every row of one file or table.

        Args:
            name: Kept with the rows as their source.
            prefix: Prefix of the ids that are made for its rows, if it has none.
        """
        self._maker.begin_file(name)
        self._counts["files"] += 1
        self._has_ids = False
        for batch in batches:
            self.n_rows += len(batch)
            for record in batch.faulty:
                if self._forgotten and self._forgotten.is_gone("ticket", record.ticket_id):
                    self._drop_forgotten(name, record.line)
                elif isinstance(record.content, Fault):
                    self._remove(record.content, name, record.line, record.offset, record.ticket_id)
            self._take(name, batch)
            if self._aside is not None and self._n_held >= HELD_BYTES:
                self._put_aside(self._aside, name, prefix)
        self._end_file(name, prefix)

    def finish(self) -> None:
        """Collect the notes after everything is read; raises what `TicketMaker.finish` raises."""
        self.notes = {**self._counts, **self._maker.finish()}

    def write(self, out: Path) -> int:
        """Write `out/tickets.parquet`; return the number of tickets."""
        if self._aside is None or not self._parts:
            return write_tickets(self.tickets(), out)
        self._put_held_aside(self._aside)
        return write_ordered_tickets(merge_parts(self._parts), out, is_read_next=False)

    def tickets(self) -> pa.Table:
        """Return the held tickets in the order read: all of them, if nothing was spilled."""
        return pa.concat_tables([TICKETS_ARROW.empty_table(), *self._tables])

    def removed(self) -> pa.Table:
        """Return the rows of `removed.parquet`: quarantined, deleted, and places of forgotten customers' rows."""
        return pa.concat_tables([*self._removed_tables, removed_table(self._removed)])

    def _take(self, name: str, batch: RowBatch) -> None:
        made = self._maker.make(batch)
        gone = self._gone(made)
        for index in gone:
            self._drop_forgotten(name, int(batch.lines[index]))
        untimely = self._untimely(name, batch, made, gone)
        for index, fault in made.faults.items():
            if index not in gone | untimely:
                offset = None if batch.offsets is None else int(batch.offsets[index])
                self._remove(fault, name, int(batch.lines[index]), offset, made.ids[index])
        n_rows, leaves = len(batch.rows), made.faults.keys() | gone | untimely
        if n_rows == len(leaves):
            return
        columns = {**made.columns, "source_line": pa.array(batch.lines)}
        if batch.offsets is not None:
            columns["byte_offset"] = pa.array(batch.offsets)
        table = pa.Table.from_arrays(list(columns.values()), names=list(columns))
        if leaves:
            table = table.filter(pa.array([index not in leaves for index in range(n_rows)], pa.bool_()))
        self._file.append(table)
        self._n_held += table.nbytes

    def _gone(self, made: Made) -> set[int]:
        """Return the positions in the batch of rows of forgotten customers, including faulty rows."""
        forgotten = self._forgotten
        if not forgotten:
            return set()
        faulty = {index for index, customer in made.customers.items() if forgotten.is_gone("customer", customer)}
        if "customer_id" not in made.columns:
            return faulty
        return faulty | set(pc.indices_nonzero(forgotten.mask("customer", made.columns["customer_id"])).to_pylist())

    def _untimely(self, name: str, batch: RowBatch, made: Made, gone: set[int]) -> set[int]:
        """Drop the rows that were not there yet at `before`; return their positions in the batch."""
        if self._before is None:
            return set()
        n_rows = len(batch.rows)
        created = made.columns.get("created_at", pa.nulls(n_rows, TICKETS_ARROW.field("created_at").type))
        later = set(pc.indices_nonzero(pc.greater_equal(created, pa.scalar(self._before, created.type))).to_pylist())
        undated = set(pc.indices_nonzero(pc.is_null(created)).to_pylist()) - made.faults.keys()
        self.n_undated += len(undated)
        untimely = (later | undated) - gone
        ids = made.columns.get("ticket_id")
        for index in sorted(untimely):
            ticket_id = made.ids.get(index) or (None if ids is None else ids[index].as_py())
            offset = None if batch.offsets is None else int(batch.offsets[index])
            self._remove(_LATER if index in later else _UNDATED, name, int(batch.lines[index]), offset, ticket_id)
        return untimely

    def _drop_forgotten(self, name: str, line: int) -> None:
        self._remove(_GONE, name, line, None, None)

    def _end_file(self, name: str, prefix: str) -> None:
        """Give ids to a file without any; in a file with ids, quarantine the rows that lack theirs."""
        table = self._rows_of_file(name)
        if table is not None and (with_ids := self._with_ids(table, name)) is not None:
            self._tables.append(_tickets(with_ids))
        elif table is not None:
            self._tables.append(_tickets(_named(table, prefix)))
            self._counts["ids_made"] += table.num_rows
        for part in self._guessed:
            for rows in part.chunks():
                if self._has_ids:
                    self._remove_without_id(rows, name)
                else:
                    self._counts["ids_made"] += rows.num_rows
        if not self._has_ids:
            self._parts += self._guessed
        self._guessed = []

    def _put_aside(self, aside: Path, name: str, prefix: str) -> None:
        """Spill the held tickets. Rows before the first id of their file get a provisional id."""
        table = self._rows_of_file(name)
        if table is not None and (with_ids := self._with_ids(table, name)) is not None:
            self._tables.append(_tickets(with_ids))
        elif table is not None:
            self._guessed.append(self._part(aside, _named(table, prefix)))
        self._put_held_aside(aside)

    def _put_held_aside(self, aside: Path) -> None:
        table = self.tickets()
        self._tables, self._n_held = [], 0
        if table.num_rows:
            self._parts.append(self._part(aside, table))

    def _part(self, aside: Path, table: pa.Table) -> SortedPart:
        self._n_files += 1
        return SortedPart(aside / f"{self._n_files:06d}.arrow", table)

    def _rows_of_file(self, name: str) -> pa.Table | None:
        """Take the held rows of the file."""
        if not self._file:
            return None
        # Columns that some batches lack, ticket_id among them, are null there.
        table = _with_missing(pa.concat_tables(self._file, promote_options="default"))
        self._file = []
        return table.append_column(_SOURCE, pa.repeat(pa.scalar(name), table.num_rows))

    def _with_ids(self, table: pa.Table, name: str) -> pa.Table | None:
        """Return the rows with an id and quarantine the others; None if no row of the file has had an id so far."""
        ids = table.column("ticket_id")
        self._has_ids = self._has_ids or ids.null_count < table.num_rows
        if not self._has_ids:
            return None
        if ids.null_count:
            self._remove_without_id(table.filter(pc.is_null(ids)), name)
            table = table.filter(pc.is_valid(ids))
        return table

    def _remove_without_id(self, table: pa.Table, name: str) -> None:
        fault = Fault("TG0246", "The row has no ticket_id, others of its file do.", "ticket_id")
        for row in table.select(["source_line", "byte_offset"]).to_pylist():
            self._remove(fault, name, row["source_line"], row["byte_offset"], None)

    def _remove(self, fault: Fault, name: str, line: int, offset: int | None, ticket_id: str | None) -> None:
        self.n_dropped += fault.outcome == "dropped"
        self._removed.append(
            {
                "ticket_id": ticket_id,
                "outcome": fault.outcome,
                "code": fault.code,
                "reason": fault.reason,
                "field": fault.field,
                "source": name,
                "source_line": line,
                "byte_offset": offset,
            }
        )
        if len(self._removed) >= _HELD_REMOVED:
            self._removed_tables.append(removed_table(self._removed))
            self._removed = []


def _named(table: pa.Table, prefix: str) -> pa.Table:
    """Return the rows with ids made of the prefix and their line."""
    lines = table.column("source_line").cast(pa.string())
    made = pc.binary_join_element_wise(pa.scalar(prefix), lines, "-")
    return table.set_column(table.column_names.index("ticket_id"), TICKETS_ARROW.field("ticket_id"), made)


def _tickets(table: pa.Table) -> pa.Table:
    return table.select(TICKETS_ARROW.names).cast(TICKETS_ARROW)


def _with_missing(table: pa.Table) -> pa.Table:
    for field in (*TICKETS_ARROW, _OFFSET):
        if field.name not in table.column_names and field.name != _SOURCE.name:
            table = table.append_column(field.with_nullable(True), pa.nulls(table.num_rows, field.type))
    return table
