"""Write what a step leaves: rows without a code stay, rows with one are dropped under it.

It knows nothing of why a row goes. Called by the steps of `curate.steps` that decide row by row, inside functions:
importing pyarrow takes a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import RowCounts, TicketTable
from tasks.curate.rows import write_removed, write_tickets


def drop_rows(
    table: pa.Table,
    *,
    codes: pa.Array,
    reasons: pa.Array,
    out: Path,
    notes: Mapping[str, int],
    possible: Sequence[str],
    cluster_ids: pa.Array | None = None,
) -> TicketTable:
    """Write `tickets.parquet` and `removed.parquet` and count.

    Args:
        table: Every row that came in, as it leaves when it stays.
        codes: Per row the code it is dropped under; null keeps it.
        reasons: Per row one sentence without ticket text, where there is a code.
        notes: Further counts.
        possible: The codes there may be, in order: each gets a note `dropped_<code>`, also when it is 0.
        cluster_ids: Per row the cluster that a removed row is told to belong to.
    """
    goes = pc.is_valid(codes)
    places = table.select(["ticket_id", "source", "source_line"])
    if cluster_ids is not None:
        places = places.append_column("cluster_id", cluster_ids)
    removed = (
        places.append_column("code", codes)
        .append_column("reason", reasons)
        .filter(goes)
        .append_column("outcome", pa.repeat(pa.scalar("dropped"), pc.sum(goes, min_count=0).as_py()))
    )
    return write_step(table.filter(pc.invert(goes)), removed, out=out, notes=notes, possible=possible)


def write_step(
    kept: pa.Table, removed: pa.Table, *, out: Path, notes: Mapping[str, int], possible: Sequence[str]
) -> TicketTable:
    """The same from two tables: `kept` with the ticket columns, `removed` with those of removed rows."""
    n_out = write_tickets(kept, out)
    n_dropped = write_removed(removed, out)
    found = {entry["values"].as_py(): entry["counts"].as_py() for entry in pc.value_counts(removed["code"])}
    return TicketTable(
        root=out,
        rows=RowCounts(n_in=n_out + n_dropped, n_out=n_out, n_dropped=n_dropped),
        notes={f"dropped_{code}": found.get(code, 0) for code in possible} | dict(notes),
    )


def first_rule(rules: Mapping[str, tuple[pa.Array, pa.Array]], n_rows: int) -> tuple[pa.Array, pa.Array]:
    """Code and reason per row of the first rule that holds, in the order given.

    Args:
        rules: Code -> (whether it takes the row, with what reason). NULL takes nothing.
    """
    codes = reasons = pa.nulls(n_rows, pa.string())
    for code, (takes, reason) in rules.items():
        first = pc.and_(pc.fill_null(takes, False), pc.is_null(codes))
        codes = pc.if_else(first, pa.scalar(code), codes)
        reasons = pc.if_else(first, reason, reasons)
    return codes, reasons


def number_text(before: str, values: pa.Array, after: str) -> pa.Array:
    """Per row `before`, the number, `after`: `0.62` of a share, `12` of a count; null where the value is null."""
    if pa.types.is_floating(values.type):
        values = pc.round(values, ndigits=3)
    return pc.binary_join_element_wise(pa.scalar(before), values.cast(pa.string()), pa.scalar(after), "")
