"""Estimate the parts of a split by its own rule, which drops some tickets of customers on both sides of the cut.

Of a large file only some rows are examined, and there customers are on both sides less often than in the whole file:
the estimate is then too high. Called by `tasks/start/propose.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.curation import SplitSpec
from tasks.curate.split_placing import NEVER, TEST, TRAIN, nothing_known, owners_of, place_tickets

OWNERS = ("customer_id", "thread_id")


@dataclass(frozen=True)
class Parts:
    """Shares of the tickets, 0-1; the rest is validation."""

    train: float
    held_out: float
    dropped: float


def estimate_parts(tickets: Sequence[Mapping[str, Any]], split: SplitSpec) -> Parts:
    """Place the tickets as the first split would.

    Args:
        tickets: `created_at`, `customer_id` and `thread_id` of at least one; each may be missing.
        split: As proposed.
    """
    columns: dict[str, pa.Array] = {"ticket_id": pa.array(map(str, range(len(tickets))))}
    for name in OWNERS:
        columns[name] = pa.array([ticket.get(name) for ticket in tickets], pa.string())
    times = pa.array([ticket.get("created_at") for ticket in tickets], pa.timestamp("us"))
    place = place_tickets(
        owners=owners_of(pa.table(columns), split.group_by),
        created=pc.fill_null(times.cast(pa.int64()), NEVER).to_numpy().astype(np.int64),
        known=nothing_known(len(tickets)),
        split=split,
        by_time=split.by_time and times.null_count < len(times),
    ).place
    return Parts(
        train=float(np.mean(place == TRAIN)),
        held_out=float(np.mean(place == TEST)),
        dropped=float(np.mean(place > TEST)),
    )
