"""Write what a step leaves: rows without a code stay, rows with one are dropped under it.

It knows nothing of why a row goes. Called by the steps of `curate.steps` that decide row by row, inside functions:
importing pyarrow takes a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import RowCounts, TicketTable
from tasks.curate.rows import TicketWriter, write_removed, write_tickets


class Judged(NamedTuple):
    """Some of the rows that came in, as they leave when they stay, and what becomes of each."""

    table: pa.Table
    codes: pa.Array | pa.ChunkedArray
    """The code it is dropped under; null keeps it."""
    reasons: pa.Array | pa.ChunkedArray
    """One sentence without ticket text, where there is a code."""
    cluster_ids: pa.ChunkedArray | None = None
    """The cluster that a removed row is told to belong to."""


def drop_rows(
    judged: Iterable[Judged],
    *,
    out: Path,
    notes: Mapping[str, int],
    possible: Sequence[str],
    outcome: Literal["dropped", "quarantined"] = "dropped",
) -> TicketTable:
    """Write `tickets.parquet` and `removed.parquet` and count.

    Args:
        judged: Every row, in the order of the table: one batch at least. One is held, and what is removed.
        notes: Further counts; looked at when the last row is written.
        possible: The codes there may be, in order: each gets a note `dropped_<code>`, also when it is 0.
        outcome: Quarantined rows are faulty or suspect, dropped ones merely not wanted.
    """
    removed = []
    with TicketWriter(out) as writer:
        for batch in judged:
            goes = pc.is_valid(batch.codes)
            removed.append(_removed(batch, goes, outcome))
            writer.add(batch.table.filter(pc.invert(goes)))
    return _told(writer.n_rows, pa.concat_tables(removed), out=out, notes=notes, possible=possible)


def _removed(batch: Judged, goes: pa.ChunkedArray, outcome: str) -> pa.Table:
    places = batch.table.select(["ticket_id", "source", "source_line"])
    if batch.cluster_ids is not None:
        places = places.append_column("cluster_id", batch.cluster_ids)
    return (
        places.append_column("code", batch.codes)
        .append_column("reason", batch.reasons)
        .filter(goes)
        .append_column("outcome", pa.repeat(pa.scalar(outcome), pc.sum(goes, min_count=0).as_py()))
    )


def write_step(
    kept: pa.Table, removed: pa.Table, *, out: Path, notes: Mapping[str, int], possible: Sequence[str]
) -> TicketTable:
    """The same from two tables: `kept` with the ticket columns, `removed` with those of removed rows."""
    return _told(write_tickets(kept, out), removed, out=out, notes=notes, possible=possible)


def _told(
    n_out: int, removed: pa.Table, *, out: Path, notes: Mapping[str, int], possible: Sequence[str]
) -> TicketTable:
    n_removed = write_removed(removed, out)
    n_quarantined = pc.sum(pc.equal(removed["outcome"], "quarantined"), min_count=0).as_py()
    found = {entry["values"].as_py(): entry["counts"].as_py() for entry in pc.value_counts(removed["code"])}
    return TicketTable(
        root=out,
        rows=RowCounts(
            n_in=n_out + n_removed, n_out=n_out, n_quarantined=n_quarantined, n_dropped=n_removed - n_quarantined
        ),
        notes={f"dropped_{code}": found.get(code, 0) for code in possible} | dict(notes),
    )


class Rule(NamedTuple):
    """What takes a row, and how its reason is told: `before`, the row's number, `after`."""

    takes: pa.Array
    """Boolean; NULL takes nothing."""
    before: str
    numbers: pa.Array | None = None
    after: str = ""

    def reasons(self, rows: pa.Array) -> pa.Array:
        """The reasons of the rows that the boolean `rows` marks; only these cost anything."""
        if self.numbers is None:
            return pa.repeat(pa.scalar(self.before), pc.sum(rows, min_count=0).as_py())
        numbers = self.numbers.filter(rows)
        if pa.types.is_floating(numbers.type):
            numbers = pc.round(numbers, ndigits=3)
        return pc.binary_join_element_wise(pa.scalar(self.before), numbers.cast(pa.string()), pa.scalar(self.after), "")


def first_rule(rules: Mapping[str, Rule], n_rows: int) -> tuple[pa.Array, pa.Array]:
    """Code and reason per row of the first rule that takes it, in the order given; null where none does."""
    codes = reasons = pa.nulls(n_rows, pa.string())
    for code, rule in rules.items():
        first = pc.and_(pc.fill_null(rule.takes, False), pc.is_null(codes))
        codes = pc.if_else(first, pa.scalar(code), codes)
        reasons = pc.replace_with_mask(reasons, first, rule.reasons(first))
    return codes, reasons
