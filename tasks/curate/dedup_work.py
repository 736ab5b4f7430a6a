"""The work of dedup in parts; `tasks/curate/dedup_parts.py` explains why the parts give the whole result.

Each function takes the results of others as further arguments, one per part, and is deterministic. Sets of shingles are
sent: those of some texts of one part, or of texts collected from several. A text is known by its rank: its place in the
declared order of preference among all texts. Arrays may be shared with other processes, so none is written to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.curation_steps import DedupStep
from tasks.curate.row_groups import unpacked
from tasks.curate.similarity.compared import compared_texts
from tasks.curate.similarity.join import (
    CrowdedFamilyError,
    JoinLimits,
    Prefixes,
    choose_by_cells,
    choose_prefixes,
    connect_components,
    count_hashes,
    family,
    walk,
)
from tasks.curate.similarity.kernels.comparing import ADD_IF_ALONE, LOOK, mark_candidates
from tasks.curate.similarity.kernels.prefixes import count_cells, group_equal
from tasks.curate.similarity.shingles import BATCH_ROWS, ShingleSets, power_of_two, shingle_sets, starts_of

_DENSE = 0.15
"""Share of a part's hashes above which reading all of them is faster than fetching each."""
Refused = list[int]
"""Ranks of a family that is too crowded to be compared."""


@dataclass(frozen=True)
class RowSets:
    """The texts of a range of rows: their sets, in the order of the rows, one after the other."""

    sets: ShingleSets
    ranks: Any
    """int64: the rank of each."""


@dataclass(frozen=True)
class Chosen:
    """Some texts with their sets."""

    ranks: Any
    sizes: Any
    hashes: Any
    """uint64: their sets, one after the other."""

    @property
    def nbytes(self) -> int:
        """Bytes that are sent."""
        return int(self.ranks.nbytes + self.sizes.nbytes + self.hashes.nbytes)


def choose(piece: RowSets, texts: Any) -> Chosen:
    """Return these texts of a part, by their numbers in ascending order."""
    sets = piece.sets
    sizes = sets.sizes[texts]
    n_hashes = int(sizes.sum(dtype=np.int64))
    if n_hashes == len(sets.hashes):
        hashes = sets.hashes
    elif n_hashes > _DENSE * len(sets.hashes):
        wanted = np.zeros(len(sets), bool)
        wanted[texts] = True
        hashes = sets.hashes[np.repeat(wanted, sets.sizes)]
    else:
        places = np.arange(n_hashes) + np.repeat(sets.starts[texts] - starts_of(sizes), sizes)
        hashes = sets.hashes[places]
    return Chosen(piece.ranks[texts], sizes, hashes)


def sets_of(several: Sequence[Chosen]) -> tuple[Any, ShingleSets]:
    """Return ranks and sets of all of them; their keys are no longer used, and 0."""
    sizes = np.concatenate([np.empty(0, np.int32), *(each.sizes for each in several)])
    hashes = np.concatenate([np.empty(0, np.uint64), *(each.hashes for each in several)])
    ranks = np.concatenate([np.empty(0, np.int64), *(each.ranks for each in several)])
    return ranks, ShingleSets(hashes, starts_of(sizes), sizes, np.zeros((len(sizes), 2), np.uint64))


@dataclass(frozen=True)
class Keys:
    """Texts of one part whose keys fall into one bucket."""

    ranks: Any
    keys: Any
    sizes: Any


@dataclass(frozen=True)
class Firsts:
    """For the texts of one bucket of keys: which text represents each."""

    ranks: Any
    firsts: Any
    """int64: rank of the first text that is equal."""
    empty: Any
    """bool: it has no word."""
    n_hashes: int
    """Shingles of the texts that represent others or themselves."""


@dataclass(frozen=True)
class Meeting:
    """Texts that have a prefix shingle in one bucket, with the prefix shingles that are in it; without their sets."""

    ranks: Any
    sizes: Any
    sketches: Any
    prefixes: Any
    """uint64: the shingles, text by text, rarest first."""
    n_prefix: Any
    n_index: Any
    n_alone: Any
    """int32, as in `Prefixes`."""


def shingle_piece(piece: pa.Buffer, ranks: Any, step: DedupStep, n_buckets: int) -> tuple[Any, ...]:
    """Return the sets of a range of rows, and their keys by bucket."""
    sets = shingle_sets(
        unpacked(piece).to_batches(max_chunksize=BATCH_ROWS),
        text_of=compared_texts(step),
        n_words=step.shingle_words,
        threads=1,
    )
    bucket = sets.keys[:, 0] % np.uint64(n_buckets)
    by_bucket = [np.flatnonzero(bucket == number) for number in range(n_buckets)]
    return (RowSets(sets, ranks), *(Keys(ranks[texts], sets.keys[texts], sets.sizes[texts]) for texts in by_bucket))


def first_of_equal(*buckets: Keys) -> Firsts:
    """Let the first of equal texts in the order represent all; a text without a word represents itself."""
    ranks = np.concatenate([each.ranks for each in buckets])
    keys = np.concatenate([each.keys for each in buckets])
    sizes = np.concatenate([each.sizes for each in buckets])
    firsts = np.empty(len(ranks), np.int64)
    table = np.full(power_of_two(max(64, 2 * len(ranks))), -1, np.int64)
    group_equal(keys, np.argsort(ranks), firsts, table)
    alone = firsts == np.arange(len(ranks))
    return Firsts(ranks, ranks[firsts], (keys == 0).all(axis=1), int(sizes[alone].sum(dtype=np.int64)))


def cells_of_piece(piece: RowSets, texts: Any, bits: int, n_ranges: int) -> tuple[Any, ...]:
    """Return by range the cell of each hash of these texts, counted from the first cell of its range."""
    cells = (choose(piece, texts).hashes >> np.uint64(64 - bits)).astype(np.uint32)
    length = _range_length(bits, n_ranges)
    ranges = cells // np.uint32(length)
    return tuple(cells[ranges == number] - np.uint32(number * length) for number in range(n_ranges))


def count_range(bits: int, n_ranges: int, *several: Any) -> tuple[Any]:
    """Count how many hashes fall into each cell of a range, up to 255."""
    counts = np.zeros(_range_length(bits, n_ranges), np.uint8)
    for cells in several:
        count_cells(
            cells.astype(np.uint64), np.zeros(1, np.int64), np.array([len(cells)], np.int32), np.uint64(0), counts
        )
    return (counts,)


def meet(piece: RowSets, texts: Any, threshold: float, bits: int, n_buckets: int, *ranges: Any) -> tuple[Meeting, ...]:
    """Choose the rare prefix of each text, and send the text to the bucket of each shingle in it."""
    cells = np.concatenate(ranges)
    sets = piece.sets.take(texts)
    chosen = choose_by_cells(sets, cells, np.uint64(64 - bits), threshold=threshold, n_slices=1)
    of = np.repeat(np.arange(len(texts)), chosen.sizes)
    is_index = np.arange(len(of)) - chosen.starts[of] < chosen.n_index[of]
    bucket = (chosen.hashes % np.uint64(n_buckets)).astype(np.int64)
    by_bucket = np.argsort(bucket, kind="stable")
    ends = np.cumsum(np.bincount(bucket, minlength=n_buckets))

    def meeting(low: int, high: int) -> Meeting:
        entries = by_bucket[low:high]  # in the order of texts, and of each text's prefix
        some, first, n_prefix = np.unique(of[entries], return_index=True, return_counts=True)
        n_index = np.add.reduceat(is_index[entries], first, dtype=np.int32) if len(some) else n_prefix
        return Meeting(
            piece.ranks[texts[some]],
            sets.sizes[some],
            chosen.sketches[some],
            chosen.hashes[entries],
            n_prefix.astype(np.int32),
            n_index.astype(np.int32),
            chosen.n_alone[some],
        )

    return tuple(meeting(low, high) for low, high in zip([0, *ends[:-1]], ends, strict=True))


def mark_bucket(threshold: float, max_comparisons: int, *meetings: Meeting) -> tuple[Any, Meeting, int]:
    """Return the texts of a bucket that may be similar to another in it: their ranks, and what is known of them.

    If more comparisons than allowed are needed, the ranks are those of the family that is too crowded.
    """
    together = _together(meetings)
    prefixes = _prefixes_of(together)
    marked, tried = np.zeros(len(together.ranks), np.uint8), np.zeros(len(together.ranks), np.int64)
    n_compared = mark_candidates(
        together.sizes, prefixes.sketches, prefixes.hashes, prefixes.starts, prefixes.sizes, prefixes.n_index,
        prefixes.n_alone, prefixes.cells, prefixes.shift, threshold, np.argsort(together.sizes, kind="stable"),
        marked, tried, max_comparisons, *_work_arrays(len(together.ranks), int(together.n_index.sum(dtype=np.int64))),
    )  # fmt: skip
    if n_compared > max_comparisons:
        return together.ranks[family(prefixes, tried)], _some(together, np.empty(0, np.int64)), n_compared
    some = np.flatnonzero(marked)
    some = some[np.argsort(together.ranks[some])]
    return together.ranks[some], _some(together, some), n_compared


def both(one: Any, other: Any) -> tuple[Any, Any]:
    """Return two held results together."""
    return one, other


def connect_bucket(limits: JoinLimits, meeting: Meeting, *several: Chosen) -> tuple[Any, Any, int] | Refused:
    """Connect the similar texts among those that were marked in a bucket, by their sets.

    Returns, for each text but one of a component, its rank and that of another; and the number of comparisons.
    """
    ranks, sets = sets_of(several)
    order = np.argsort(ranks)
    ranks, sets = ranks[order], sets.take(order)
    try:
        component, n_compared = connect_components(
            sets,
            _prefixes_of(meeting),
            threshold=limits.threshold,
            max_comparisons=limits.max_comparisons,
            where=limits.where,
        )
    except CrowdedFamilyError as error:
        return [int(rank) for rank in ranks[error.members]]
    joined = np.flatnonzero(component != np.arange(len(ranks)))
    return ranks[joined], ranks[component[joined]], n_compared


def pick(piece: RowSets, texts: Any, packs: Any, n_packs: int) -> tuple[Chosen, ...]:
    """Return by pack these texts, in ascending order, with their sets."""
    return tuple(choose(piece, texts[packs == number]) for number in range(n_packs))


def walk_pack(limits: JoinLimits, *several: Chosen) -> tuple[Any, Any, Any, int] | Refused:
    """Walk the components of a pack in the order of ranks; return of each removed text its rank, that of the kept one
    and J, and the number of comparisons."""
    ranks, sets = sets_of(several)
    order = np.argsort(ranks)
    ranks, sets = ranks[order], sets.take(order)
    try:
        walked = walk(
            sets,
            choose_prefixes(sets, threshold=limits.threshold),
            order=np.arange(len(ranks)),
            actions=np.full(len(ranks), LOOK | ADD_IF_ALONE, np.uint8),
            limits=limits,
        )
    except CrowdedFamilyError as error:
        return [int(rank) for rank in ranks[error.members]]
    removed = np.flatnonzero(walked.best != -1)
    return ranks[removed], ranks[walked.best[removed]], walked.score[removed], walked.n_comparisons


def _together(meetings: Sequence[Meeting]) -> Meeting:
    return Meeting(
        *(np.concatenate([getattr(each, field.name) for each in meetings]) for field in fields(Meeting)),
    )


def _some(meeting: Meeting, texts: Any) -> Meeting:
    """Return these texts of a meeting, in this order."""
    n_prefix = meeting.n_prefix[texts]
    starts = starts_of(meeting.n_prefix)[texts]
    places = np.arange(int(n_prefix.sum(dtype=np.int64))) + np.repeat(starts - starts_of(n_prefix), n_prefix)
    return Meeting(
        meeting.ranks[texts],
        meeting.sizes[texts],
        meeting.sketches[texts],
        meeting.prefixes[places],
        n_prefix,
        meeting.n_index[texts],
        meeting.n_alone[texts],
    )


def _prefixes_of(meeting: Meeting) -> Prefixes:
    """Return the parts of the prefixes that are in this bucket, in the form of whole ones."""
    starts = starts_of(meeting.n_prefix)
    cells, shift = count_hashes(meeting.prefixes, starts, meeting.n_prefix, len(meeting.prefixes))
    return Prefixes(
        meeting.prefixes, starts, meeting.n_prefix, cells, shift, meeting.n_index, meeting.n_alone, meeting.sketches
    )


def _work_arrays(n: int, n_nodes: int) -> tuple[Any, ...]:
    """Make slot keys, two lists per slot, nodes and compared, as `mark_candidates` describes them."""
    n_slots = power_of_two(max(64, 2 * n_nodes))
    return (
        np.zeros(n_slots, np.uint64),
        np.full(n_slots, -1, np.int32),
        np.full(n_slots, -1, np.int32),
        np.empty((n_nodes, 3), np.int32),
        np.full(n, -1, np.int32),
    )


def _range_length(bits: int, n_ranges: int) -> int:
    return -(-(1 << bits) // n_ranges)
