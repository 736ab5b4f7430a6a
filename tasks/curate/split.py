"""Train, validation and test: held-out is later than train, and no customer or thread is on two sides.

Who belongs where depends on ids, times and the seed alone, never on a text, reply or label: two pipelines whose
tickets differ only there have the same held-out rows. Duplicates must be gone before (`tasks/curate/dedup.py`).
Called by `flows/curate.py`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import RowCounts, Splits, TicketTable
from schemas.curation import SplitSpec
from schemas.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

WHERE = "split"
PARTS = ("train", "validation", "test")
STRADDLER_GOAL = 0.5
"""Share of the window's tickets for which groups on both sides of the cut are held out (see `split_tickets`)."""
STRADDLER_COST = 0.5
"""Largest share of the tickets before the cut that may be given up for it."""

_REASONS = {
    "straddles_cut_early": "written before the cut by a held-out customer or thread",
    "straddles_cut_late": "written after the cut by a customer or thread that is in train",
    "no_created_at": "no time, so it may be later than the held-out tickets",
}


@dataclass(frozen=True)
class Ticket:
    """What the split knows of a ticket."""

    ticket_id: str
    created_at: datetime | None
    owners: tuple[str, ...]
    """Customer and thread, each with the column's name before it; empty when the ticket belongs to nobody."""


def split_tickets(*, tickets: TicketTable, split: SplitSpec, out: Path) -> Splits:
    """Write `train.parquet`, `validation.parquet`, `test.parquet` and `removed.parquet`.

    Tickets that share a customer or a thread, directly or over others, are one group; a ticket with neither is its
    own. With times the newest `test_fraction` of the tickets is the window. Groups only in the window are held out,
    groups only before it train; neither loses anything. A group on both sides (a straddler) must give up one:
    straddlers with the fewest tickets before the cut per ticket in the window (ties by hash of seed and group) are
    held out until half of the window is, the others train; what lies on a group's wrong side is dropped as
    `straddles_cut_early` or `straddles_cut_late`. This is the order that loses least: of 3,000 tickets by 400
    customers over 8 weeks, nearly all straddlers, 65 % train and 10 % are held out, where a random choice of
    customers would leave 49 % and 10 %. The price: held-out customers lean towards those who wrote more of late.
    A ticket without a time is dropped as `no_created_at`.

    With no times at all, or `by_time: false`, groups are held out in the order of their hash up to `test_fraction`.
    Validation takes whole groups of train in the order of another hash, up to `validation_fraction` of train.

    Notes: `groups`, `straddling_groups`, `dropped_<code>`.

    Raises:
        DataError: train or test would be empty.
    """
    from tasks.curate.rows import read_rows, write_removed, write_tickets

    table = read_rows(tickets.tickets)
    rows = _tickets(table.select(["ticket_id", "created_at", *split.group_by]).to_pylist(), split.group_by)
    groups = group_tickets(rows)
    by_time = split.by_time and any(row.created_at for row in rows)
    places, n_straddling = assign_by_time(rows, groups, split) if by_time else (assign_by_hash(rows, groups, split), 0)
    places = _set_validation_aside(places, groups, split)
    counts = Counter(places)
    if not counts["train"] or not counts["test"]:
        raise DataError(
            f"{len(rows)} tickets of {len(set(groups))} customers or threads split into {counts['train']} train and "
            f"{counts['test']} test rows; both must have rows",
            code="TG0251",
            where=WHERE,
            hint="more tickets or customers are needed; `by_time: false` splits by customer alone",
        )
    for part in PARTS:
        write_tickets(_take(table, places, part), out, name=f"{part}.parquet")
    removed = [
        {
            "ticket_id": row["ticket_id"],
            "outcome": "dropped",
            "code": place,
            "reason": _REASONS[place],
            "source": row["source"],
            "source_line": row["source_line"],
        }
        for row, place in zip(table.select(["ticket_id", "source", "source_line"]).to_pylist(), places, strict=True)
        if place not in PARTS
    ]
    write_removed(removed, out)
    return Splits(
        root=out,
        rows=RowCounts(n_in=len(rows), n_out=len(rows) - len(removed), n_dropped=len(removed)),
        n_train=counts["train"],
        n_validation=counts["validation"],
        n_test=counts["test"],
        group_by=split.group_by,
        notes={"groups": len(set(groups)), "straddling_groups": n_straddling}
        | {f"dropped_{code}": counts[code] for code in _REASONS},
    )


def group_tickets(rows: Sequence[Ticket]) -> list[str]:
    """The group of each ticket: the smallest owner of its connected component over shared owners.

    >>> one = Ticket("a", None, ("customer_id=1", "thread_id=9"))
    >>> two = Ticket("b", None, ("customer_id=2", "thread_id=9"))
    >>> group_tickets([one, two, Ticket("c", None, ())])
    ['customer_id=1', 'customer_id=1', 'ticket_id=c']
    """
    parent: dict[str, str] = {}

    def root_of(owner: str) -> str:
        parent.setdefault(owner, owner)
        while parent[owner] != owner:
            parent[owner] = parent[parent[owner]]
            owner = parent[owner]
        return owner

    for row in rows:
        for other in row.owners[1:]:
            low, high = sorted((root_of(row.owners[0]), root_of(other)))
            parent[high] = low
    return [root_of(row.owners[0]) if row.owners else f"ticket_id={row.ticket_id}" for row in rows]


def assign_by_time(rows: Sequence[Ticket], groups: Sequence[str], split: SplitSpec) -> tuple[list[str], int]:
    """Place of each ticket (train, test or the code under which it is dropped) and the number of straddling groups."""
    times = sorted(row.created_at for row in rows if row.created_at is not None)
    cut = times[-max(1, round(len(times) * split.test_fraction))]
    timed = [(group, row.created_at >= cut) for row, group in zip(rows, groups, strict=True) if row.created_at]
    late = Counter(group for group, is_late in timed if is_late)
    early = Counter(group for group, is_late in timed if not is_late)
    held_out = late.keys() - early.keys()
    straddlers = sorted(
        late.keys() & early.keys(),
        key=lambda group: (early[group] / late[group], _hash(split.seed, "test", group)),
    )
    n_held_out = sum(late[group] for group in held_out)
    n_given_up = 0
    for group in straddlers:
        if n_held_out >= STRADDLER_GOAL * late.total():
            break
        if n_given_up + early[group] <= STRADDLER_COST * early.total():
            held_out.add(group)
            n_held_out += late[group]
            n_given_up += early[group]

    def place(row: Ticket, group: str) -> str:
        if row.created_at is None:
            return "no_created_at"
        if group in held_out:
            return "test" if row.created_at >= cut else "straddles_cut_early"
        return "train" if row.created_at < cut else "straddles_cut_late"

    return [place(row, group) for row, group in zip(rows, groups, strict=True)], len(straddlers)


def assign_by_hash(rows: Sequence[Ticket], groups: Sequence[str], split: SplitSpec) -> list[str]:
    """Place of each ticket: whole groups in the order of their hash, up to `test_fraction` of the tickets."""
    held_out = _choose(Counter(groups), split.test_fraction * len(rows), split.seed, "test")
    return ["test" if group in held_out else "train" for group in groups]


def _set_validation_aside(places: list[str], groups: Sequence[str], split: SplitSpec) -> list[str]:
    sizes = Counter(group for place, group in zip(places, groups, strict=True) if place == "train")
    chosen = _choose(sizes, split.validation_fraction * sizes.total(), split.seed, "validation")
    return [
        "validation" if place == "train" and group in chosen else place
        for place, group in zip(places, groups, strict=True)
    ]


def _choose(sizes: Counter[str], goal: float, seed: int, purpose: str) -> set[str]:
    """Groups in the order of their hash as long as they fit into `goal` tickets; the smallest one when none does.

    Never all groups: something must be left.
    """
    chosen: set[str] = set()
    if not goal:
        return chosen
    order = sorted(sizes, key=lambda group: _hash(seed, purpose, group))
    room = goal
    for group in order:
        if sizes[group] <= room:
            chosen.add(group)
            room -= sizes[group]
    if not chosen and order:
        chosen.add(min(order, key=lambda group: sizes[group]))
    return chosen if len(chosen) < len(sizes) else set()


def _hash(seed: int, purpose: str, group: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{purpose}\0{group}".encode()).digest()


def _tickets(rows: Iterable[dict[str, object]], group_by: Sequence[str]) -> list[Ticket]:
    tickets = []
    for row in rows:
        created_at = row["created_at"]
        tickets.append(
            Ticket(
                ticket_id=str(row["ticket_id"]),
                created_at=created_at if isinstance(created_at, datetime) else None,
                owners=tuple(f"{name}={row[name]}" for name in group_by if row[name] not in (None, "")),
            )
        )
    return tickets


def _take(table: pa.Table, places: Sequence[str], part: str) -> pa.Table:
    import pyarrow as pa

    return table.filter(pa.array([place == part for place in places], pa.bool_()))
