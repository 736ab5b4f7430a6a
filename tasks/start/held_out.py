"""Estimate the parts of a split by its own rule, which drops some tickets of customers on both sides of the cut.

All rows are read, because among a sample of them customers are on both sides less often than in the whole file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.curation import SplitSpec
from schemas.file_reading import RowReading
from tasks.curate.split_placing import NEVER, TEST, TRAIN, nothing_known, owners_of, place_tickets
from tasks.sources.readers.columns import TicketMaker
from tasks.sources.readers.records import RowBatch

PLACING: dict[str, pa.DataType] = {
    "created_at": pa.timestamp("us"),
    "customer_id": pa.string(),
    "thread_id": pa.string(),
}
"""What a split knows of a ticket."""


@dataclass(frozen=True)
class SplitShares:
    """Shares of the tickets, 0-1; the rest is validation."""

    train: float
    held_out: float
    dropped: float
    customers: float = 1.0
    """Held-out customers; a ticket without one counts as its own."""
    crowd: float = 1.0
    """Held-out tickets of the customer of a held-out ticket, itself included, on average (no share)."""


def read_placing(
    parts: Iterable[tuple[str, Iterable[RowBatch]]], source: RowReading, *, needed: Sequence[str]
) -> pa.Table:
    """What a split knows of the tickets that have a value in each of these columns.

    Args:
        parts: Name and rows of each file or table.

    Raises:
        DataError: as a run would.
    """
    maker = TicketMaker(source)
    tables = [pa.schema(PLACING).empty_table()]
    for name, batches in parts:
        maker.begin_file(name)
        for batch in batches:
            made, n_rows = maker.make(batch), len(batch.rows)
            columns = {name: made.columns.get(name, pa.nulls(n_rows)) for name in (*PLACING, *needed)}
            usable = np.ones(n_rows, bool)
            usable[list(made.faults)] = False
            for column in needed:
                usable &= pc.is_valid(columns[column]).to_numpy(zero_copy_only=False)
            read = {name: columns[name].cast(type_) for name, type_ in PLACING.items()}
            tables.append(pa.table(read).filter(pa.array(usable)))
    return pa.concat_tables(tables)


def estimate_parts(tickets: pa.Table, split: SplitSpec) -> SplitShares:
    """Place the tickets of `read_placing`, at least one, as the first split would."""
    ids = pa.array(map(str, range(tickets.num_rows)), pa.string())
    times = tickets["created_at"]
    place = place_tickets(
        owners=owners_of(tickets.append_column("ticket_id", ids), split.group_by),
        created=pc.fill_null(times.cast(pa.int64()), NEVER).to_numpy().astype(np.int64),
        known=nothing_known(tickets.num_rows),
        split=split,
        by_time=split.by_time and times.null_count < len(times),
    ).place
    customers = tickets["customer_id"].combine_chunks()
    named = pc.if_else(pc.equal(customers, ""), None, pc.binary_join_element_wise("customer", customers, " "))
    sizes = pc.value_counts(pc.coalesce(named, ids).filter(pa.array(place == TEST))).field("counts").to_numpy()
    return SplitShares(
        train=float(np.mean(place == TRAIN)),
        held_out=float(np.mean(place == TEST)),
        dropped=float(np.mean(place > TEST)),
        customers=len(sizes) / len(place),
        crowd=float((sizes**2).sum() / max(1, sizes.sum())),
    )
