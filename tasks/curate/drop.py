"""Write the result of a step: rows without a code stay, rows with one are dropped under it.

Imported inside functions by the steps that decide row by row, since importing pyarrow is slow.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifacts import RowCounts, TicketTable
from tasks.curate.rows import TicketWriter, write_removed, write_tickets

Kept = Mapping[str, pa.Array]
"""Rule -> ids of the tickets that people keep in spite of it."""
NO_KEPT: Kept = MappingProxyType({})


class Judged(NamedTuple):
    """Some of the rows that a step reads, as they are written if they stay, and what becomes of each."""

    table: pa.Table
    codes: pa.Array | pa.ChunkedArray
    """Per row the code it is dropped under; null keeps it."""
    reasons: pa.Array | pa.ChunkedArray
    """Per row one sentence without ticket text, where there is a code."""
    cluster_ids: pa.ChunkedArray | None = None
    """Per row the cluster that is recorded if it is removed."""


def drop_rows(
    judged: Iterable[Judged],
    *,
    out: Path,
    notes: Mapping[str, int],
    possible: Sequence[str],
    outcome: Literal["dropped", "quarantined"] = "dropped",
    kept: Kept = NO_KEPT,
) -> TicketTable:
    """Write `tickets.parquet` and `removed.parquet` and count.

    Args:
        judged: Every row, in the order of the table: one batch at least. One batch and all removed rows are held.
        notes: Further counts; read when the last row is written.
        possible: All codes, in order: each gets a note `dropped_<code>`, even if it is 0.
        outcome: Quarantined rows are faulty or suspect, dropped ones only unwanted.
        kept: Tickets that stay, whatever the code of theirs that is named here.
    """
    removed = []
    with TicketWriter(out) as writer:
        for batch in judged:
            drops = pc.is_valid(batch.codes)
            for code, ids in kept.items():
                stays = pc.and_(pc.equal(batch.codes, code), keeps(batch.table["ticket_id"], ids))
                drops = pc.and_(drops, pc.invert(pc.fill_null(stays, False)))
            removed.append(_removed(batch, drops, outcome))
            writer.add(batch.table.filter(pc.invert(drops)))
    return _finish(writer.n_rows, pa.concat_tables(removed), out=out, notes=notes, possible=possible)


def _removed(batch: Judged, drops: pa.ChunkedArray, outcome: str) -> pa.Table:
    places = batch.table.select(["ticket_id", "source", "source_line"])
    if batch.cluster_ids is not None:
        places = places.append_column("cluster_id", batch.cluster_ids)
    return (
        places.append_column("code", batch.codes)
        .append_column("reason", batch.reasons)
        .filter(drops)
        .append_column("outcome", pa.repeat(pa.scalar(outcome), pc.sum(drops, min_count=0).as_py()))
    )


def write_step(
    kept: pa.Table, removed: pa.Table, *, out: Path, notes: Mapping[str, int], possible: Sequence[str]
) -> TicketTable:
    """Write and count two whole tables: `kept` with the ticket columns, `removed` with those of removed rows."""
    return _finish(write_tickets(kept, out), removed, out=out, notes=notes, possible=possible)


def _finish(
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
    """Which rows a rule drops, and the reason: `before`, the row's number, `after`."""

    takes: pa.Array
    """Boolean; rows with NULL stay."""
    before: str
    numbers: pa.Array | None = None
    after: str = ""

    def reasons(self, rows: pa.Array) -> pa.Array:
        """Return the reasons of the rows that the boolean `rows` marks; no other text is made."""
        if self.numbers is None:
            return pa.repeat(pa.scalar(self.before), pc.sum(rows, min_count=0).as_py())
        numbers = self.numbers.filter(rows)
        if pa.types.is_floating(numbers.type):
            numbers = pc.round(numbers, ndigits=3)
        return pc.binary_join_element_wise(pa.scalar(self.before), numbers.cast(pa.string()), pa.scalar(self.after), "")


def first_rule(rules: Mapping[str, Rule], ids: pa.Array, kept: Kept = NO_KEPT) -> tuple[pa.Array, pa.Array]:
    """Return code and reason per row of the first rule that drops it; null where none does.

    Args:
        rules: By code, in order.
        ids: ticket_id of each row.
        kept: Tickets that a rule does not drop; the rules after it still may.
    """
    codes = reasons = pa.nulls(len(ids), pa.string())
    for code, rule in rules.items():
        takes = pc.fill_null(rule.takes, False)
        if code in kept:
            takes = pc.and_(takes, pc.invert(keeps(ids, kept[code])))
        first = pc.and_(takes, pc.is_null(codes))
        codes = pc.if_else(first, pa.scalar(code), codes)
        reasons = pc.replace_with_mask(reasons, first, rule.reasons(first))
    return codes, reasons


def kept_by_people(corrections: TicketTable | None) -> Kept:
    """Return what the step `corrections` found that people keep; empty without it."""
    if corrections is None:
        return NO_KEPT
    table = pq.read_table(corrections.root / "kept.parquet")
    return {
        rule: table.filter(pc.equal(table["rule"], rule))["ticket_id"].combine_chunks()
        for rule in pc.unique(table["rule"]).to_pylist()
    }


def keeps(ids: Any, kept: pa.Array) -> Any:
    """True for the tickets among `kept`."""
    return pc.is_in(ids, value_set=kept, skip_nulls=True)
