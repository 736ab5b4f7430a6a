"""Count the labels of what is encoded for training, next to those of the splits.

The card has the tickets that `max_examples` takes, the report those that were really encoded.
"""

from collections import Counter
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from schemas.artifacts import Splits
from schemas.curation_card import FEW, LabelBalance, LabelCounts
from schemas.training import DrawSpec
from tasks.curate.cards.card_numbers import MAX_VALUE, MAX_VALUES, PARTS, is_personal
from tasks.tickets.draw import draw_order

MAX_UNSEEN = 5
"""Unseen labels that are named."""


def drawn_balance(splits: Splits, *, draw: DrawSpec, max_examples: int | None) -> LabelBalance | None:
    """The balance of the tickets that `max_examples` takes, before any of them proves too long. See `count_balance`."""
    table = pq.read_table(splits.train, columns=["ticket_id", "created_at", *([draw.label] if draw.label else [])])
    ids = table.column("ticket_id").to_pylist()
    if max_examples is not None and max_examples < len(ids):
        labels = table.column(draw.label).to_pylist() if draw.label else [None] * len(ids)
        order = draw_order(ids, table.column("created_at").to_pylist(), labels, seed=draw.seed, cover=True)
        ids = [ids[place] for place in order[:max_examples]]
    return count_balance(splits, ids, label=draw.label, is_limited=max_examples is not None)


def count_balance(splits: Splits, ids: list[str], *, label: str | None, is_limited: bool) -> LabelBalance | None:
    """Tickets per label in the splits and among these train tickets; None if no ticket has a label.

    Args:
        splits: After decontamination.
        ids: Ids of the encoded train tickets; others, such as canaries, are ignored.
        label: Ticket column.
        is_limited: Whether there is a `max_examples`.
    """
    if label is None:
        return None
    paths = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    counts = {part: Counter(pq.read_table(path, columns=[label])[label].to_pylist()) for part, path in paths.items()}
    if not any(value is not None for part in counts.values() for value in part):
        return None
    chosen, oldest, counts["used"] = _used(splits.train, label, frozenset(ids), is_limited=is_limited)
    total: Counter[str | None] = Counter()
    for part in PARTS:
        total.update(counts[part])
    unseen = [value for value in total if value is not None and not counts["used"][value]]
    unseen = [value for value in unseen if counts["validation"][value] + counts["test"][value]]
    ranked = sorted((value for value in total if value is not None), key=lambda value: (-total[value], value))
    named = [value for value in ranked[:MAX_VALUES] if _may_be_named(value)]
    rest = {part: sum(part_counts.values()) - part_counts[None] for part, part_counts in counts.items()}
    for value in named:
        rest = {part: n - counts[part][value] for part, n in rest.items()}
    return LabelBalance(
        column=label,
        n_train=splits.n_train,
        n_used=sum(counts["used"].values()),
        chosen=chosen,
        oldest=oldest,
        values=tuple(_counts(value, counts) for value in named),
        other=LabelCounts(value="", **rest),
        missing=_counts(None, counts),
        unseen=tuple(value for value in ranked if value in unseen and _may_be_named(value))[:MAX_UNSEEN],
        n_unseen_labels=len(unseen),
        n_rare=sum(value is not None and 0 < n < FEW for value, n in counts["used"].items()),
        n_unseen_tickets=sum(counts["validation"][value] + counts["test"][value] for value in unseen),
    )


def _used(
    path: Path, label: str, ids: frozenset[str], *, is_limited: bool
) -> tuple[Literal["all", "newest", "drawn"], str | None, Counter[str | None]]:
    """How the tickets were chosen, the time of the oldest, and their labels."""
    table = pq.read_table(path, columns=["ticket_id", "created_at", label]).to_pydict()
    places = [place for place, name in enumerate(table["ticket_id"]) if name in ids]
    found = Counter(table[label][place] for place in places)
    if not is_limited or len(places) == len(table[label]):
        return "all", None, found
    times = [table["created_at"][place] for place in places if table["created_at"][place] is not None]
    if not times:
        return "drawn", None, found
    return "newest", min(times).isoformat(timespec="seconds"), found


def _may_be_named(value: str) -> bool:
    return len(value) <= MAX_VALUE and not is_personal(value)


def _counts(value: str | None, counts: dict[str, Counter[str | None]]) -> LabelCounts:
    return LabelCounts(value=value or "", **{part: found[value] for part, found in counts.items()})
