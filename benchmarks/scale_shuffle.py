"""The shuffle of near deduplication played in one process: the parts that a cluster does, with every byte counted.

`Counting` does the work of `tasks/curate/parts` as a cluster would, one part after the other, and notes for each kind
of part what it was given. So a shuffle over many more buckets than there are processors here can be looked at: how many
bytes travel for a ticket, and how uneven the buckets are. Called by `benchmarks/scale_model.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.scale_run import MAX_COMPARISONS, n_bytes
from schemas.curation_steps import DedupStep
from tasks.curate.dedup_parts import decide_in_parts

T = TypeVar("T")
SHUFFLED = {
    "first_of_equal": "keys of texts",
    "count_range": "cells of shingles",
    "mark_bucket": "word of texts",
    "connect_bucket": "sets of texts that may be similar",
    "walk_pack": "sets of texts in company",
}
"""Work that gets something of every part -> what it gets."""


@dataclass(frozen=True)
class Shuffle:
    """What one kind of part was given, over all buckets."""

    what: str
    bytes_per_ticket: float
    largest: float
    """Bytes of the fullest bucket over those of the mean one."""


@dataclass(frozen=True)
class Played:
    """One deduplication in parts."""

    n_tickets: int
    n_buckets: int
    texts_per_ticket: float
    """Bytes of texts that go from the driver to the parts."""
    shuffles: tuple[Shuffle, ...]
    prefixes: Any
    """int64: of each text that has one, the shingles of its rare prefix; what word of it is sent for."""

    @property
    def per_ticket(self) -> float:
        """Bytes that travel for a ticket."""
        return self.texts_per_ticket + sum(shuffle.bytes_per_ticket for shuffle in self.shuffles)


class Counting:
    """`Spread` in this process; handles are the things themselves."""

    def __init__(self, n_parts: int) -> None:
        self.n_parts = n_parts
        self.given: dict[str, list[int]] = defaultdict(list)
        self.prefixes: list[Any] = []

    def share(self, path: Path) -> str:
        """Nothing is shared here."""
        return path.as_uri()

    def each(self, work: Callable[..., T], parts: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """See `Spread`."""
        for part in parts:
            self.given[work.__name__].append(sum(n_bytes(thing) for thing in part if not callable(thing)))
            yield work(*part)

    def hold(
        self, work: Callable[..., tuple[Any, ...]], parts: Iterable[tuple[Any, ...]], *, n_outputs: int
    ) -> list[tuple[Any, ...]]:
        """See `Spread`."""
        held = list(self.each(work, parts))
        if work.__name__ == "meet":
            self.prefixes += [_prefix_sizes(outputs) for outputs in held]
        return held


def play(table: Path, *, n_buckets: int) -> Played:
    """Deduplicate a table between steps with so many parts and buckets."""
    from tasks.curate.rows import count_rows, read_batches
    from tasks.curate.similarity.compared import compared_columns

    step = DedupStep(uses="dedup", max_comparisons=MAX_COMPARISONS)
    n, spread = count_rows(table), Counting(n_buckets)
    batches = read_batches(table, compared_columns(step))
    decide_in_parts(batches, step, order=np.arange(n), spread=spread, where="curate.dedup")
    shuffles = tuple(
        Shuffle(what, sum(spread.given[work]) / n, max(spread.given[work]) / (sum(spread.given[work]) / n_given))
        for work, what in SHUFFLED.items()
        if (n_given := len(spread.given[work])) and sum(spread.given[work])
    )
    return Played(
        n, len(spread.given["mark_bucket"]), sum(spread.given["shingle_piece"]) / n, shuffles,
        np.concatenate(spread.prefixes),
    )  # fmt: skip


def _prefix_sizes(meetings: tuple[Any, ...]) -> Any:
    """Of each text of a part its number of prefix shingles, put together from the buckets."""
    ranks = np.concatenate([meeting.ranks for meeting in meetings])
    sizes = np.concatenate([meeting.n_prefix for meeting in meetings])
    _, places = np.unique(ranks, return_inverse=True)
    return np.bincount(places, weights=sizes).astype(np.int64)


def buckets_met(prefixes: Any, n_buckets: float) -> float:
    """Buckets that a text is expected to meet, mean over texts: its shingles fall into buckets by chance.

    >>> round(buckets_met(np.array([1, 2]), 1e12), 6)
    1.5
    """
    return float((n_buckets * -np.expm1(prefixes * np.log1p(-1 / n_buckets))).mean())
