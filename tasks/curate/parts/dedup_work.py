"""What workers do for dedup in parts; `tasks/curate/parts/dedup_parts.py` says why these parts make the whole.

Each function gets what others gave as further arguments, one per part it came from, and does the same for the same
arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.curation_steps import DedupStep
from tasks.curate.parts.pieces import unpacked
from tasks.curate.parts.sets import Chosen, Piece, choose, sets_of, starts_of
from tasks.curate.similarity.compared import compared_texts
from tasks.curate.similarity.join import (
    CrowdedFamilyError,
    Prefixes,
    choose_by_cells,
    choose_prefixes,
    connect_components,
    count_hashes,
    walk,
)
from tasks.curate.similarity.kernels.prefixes import count_cells, group_equal
from tasks.curate.similarity.kernels.sketches import WORDS, sketch_sets
from tasks.curate.similarity.kernels.walk import ADD_IF_ALONE, LOOK
from tasks.curate.similarity.shingles import BATCH_ROWS, ShingleSets, power_of_two, shingle_sets

Refused = list[int]
"""Ranks of a family that is too crowded to be compared."""


@dataclass(frozen=True)
class Keys:
    """Texts of one part whose keys fall into one bucket."""

    ranks: Any
    keys: Any
    sizes: Any


@dataclass(frozen=True)
class Firsts:
    """Of the texts of one bucket of keys: who speaks for each."""

    ranks: Any
    firsts: Any
    """int64: rank of the first text that is equal."""
    empty: Any
    """bool: it has no word."""
    n_hashes: int
    """Shingles of those that speak for others or themselves."""


@dataclass(frozen=True)
class Meeting:
    """Texts of one part that have a prefix shingle in one bucket, with those of their prefix that are in it."""

    texts: Chosen
    prefixes: Any
    n_prefix: Any
    n_index: Any
    n_alone: Any


def shingle_piece(piece: pa.Buffer, ranks: Any, step: DedupStep, n_buckets: int) -> tuple[Any, ...]:
    """The sets of a range of rows, and their keys by bucket."""
    sets = shingle_sets(
        unpacked(piece).to_batches(max_chunksize=BATCH_ROWS),
        text_of=compared_texts(step),
        n_words=step.shingle_words,
        threads=1,
    )
    bucket = sets.keys[:, 0] % np.uint64(n_buckets)
    by_bucket = [np.flatnonzero(bucket == number) for number in range(n_buckets)]
    return (Piece(sets, ranks), *(Keys(ranks[texts], sets.keys[texts], sets.sizes[texts]) for texts in by_bucket))


def first_of_equal(*buckets: Keys) -> Firsts:
    """Of equal texts the first in the order speaks for all; a text without a word for itself."""
    ranks = np.concatenate([each.ranks for each in buckets])
    keys = np.concatenate([each.keys for each in buckets])
    sizes = np.concatenate([each.sizes for each in buckets])
    firsts = np.empty(len(ranks), np.int64)
    table = np.full(power_of_two(max(64, 2 * len(ranks))), -1, np.int64)
    group_equal(keys, np.argsort(ranks), firsts, table)
    alone = firsts == np.arange(len(ranks))
    return Firsts(ranks, ranks[firsts], (keys == 0).all(axis=1), int(sizes[alone].sum(dtype=np.int64)))


def cells_of_piece(piece: Piece, texts: Any, bits: int, n_ranges: int) -> tuple[Any, ...]:
    """The cell of each hash of these texts, counted from the first of its range; by range."""
    cells = (choose(piece, texts).hashes >> np.uint64(64 - bits)).astype(np.uint32)
    length = _range_length(bits, n_ranges)
    ranges = cells // np.uint32(length)
    return tuple(cells[ranges == number] - np.uint32(number * length) for number in range(n_ranges))


def count_range(bits: int, n_ranges: int, *several: Any) -> tuple[Any]:
    """How many hashes fall into each cell of a range, up to 255."""
    counts = np.zeros(_range_length(bits, n_ranges), np.uint8)
    for cells in several:
        count_cells(
            cells.astype(np.uint64), np.zeros(1, np.int64), np.array([len(cells)], np.int32), np.uint64(0), counts
        )
    return (counts,)


def meet(piece: Piece, texts: Any, threshold: float, bits: int, n_buckets: int, *ranges: Any) -> tuple[Meeting, ...]:
    """Choose the rare prefix of each text, and send the text to the bucket of each shingle in it."""
    cells = np.concatenate(ranges)
    sets = piece.sets.take(texts)
    chosen = choose_by_cells(sets, cells, np.uint64(64 - bits), threshold=threshold, n_slices=1)
    of = np.repeat(np.arange(len(texts)), chosen.sizes)
    is_index = np.arange(len(of)) - chosen.starts[of] < chosen.n_index[of]
    bucket = chosen.hashes % np.uint64(n_buckets)

    def meeting(number: int) -> Meeting:
        there = bucket == number
        n_prefix = np.bincount(of[there], minlength=len(texts)).astype(np.int32)
        n_index = np.bincount(of[there & is_index], minlength=len(texts)).astype(np.int32)
        some = np.flatnonzero(n_prefix)
        return Meeting(
            choose(piece, texts[some]), chosen.hashes[there], n_prefix[some], n_index[some], chosen.n_alone[some]
        )

    return tuple(meeting(number) for number in range(n_buckets))


def connect_bucket(
    threshold: float, max_comparisons: int, where: str, *meetings: Meeting
) -> tuple[Any, Any, int] | Refused:
    """Connect the similar texts that met in a bucket: for each but one of a component its rank and that of another;
    and the comparisons made."""
    ranks, sets = sets_of([each.texts for each in meetings])
    prefixes = _prefixes_of(sets, meetings)
    try:
        component, n_compared = connect_components(
            sets, prefixes, threshold=threshold, max_comparisons=max_comparisons, where=where
        )
    except CrowdedFamilyError as error:
        return [int(rank) for rank in ranks[error.members]]
    joined = np.flatnonzero(component != np.arange(len(ranks)))
    return ranks[joined], ranks[component[joined]], n_compared


def pick(piece: Piece, texts: Any, packs: Any, n_packs: int) -> tuple[Chosen, ...]:
    """These texts with their sets, by the pack that each is in."""
    return tuple(choose(piece, texts[packs == number]) for number in range(n_packs))


def walk_pack(
    threshold: float, max_comparisons: int, where: str, *several: Chosen
) -> tuple[Any, Any, Any, int] | Refused:
    """Go through the components of a pack in the order of ranks: of those that go the rank, the kept one's, and J;
    and the comparisons made."""
    ranks, sets = sets_of(several)
    order = np.argsort(ranks)
    ranks, sets = ranks[order], sets.take(order)
    try:
        walked = walk(
            sets,
            choose_prefixes(sets, threshold=threshold),
            threshold=threshold,
            order=np.arange(len(ranks)),
            actions=np.full(len(ranks), LOOK | ADD_IF_ALONE, np.uint8),
            max_comparisons=max_comparisons,
            where=where,
        )
    except CrowdedFamilyError as error:
        return [int(rank) for rank in ranks[error.members]]
    goes = np.flatnonzero(walked.best != -1)
    return ranks[goes], ranks[walked.best[goes]], walked.score[goes], walked.n_comparisons


def _prefixes_of(sets: ShingleSets, meetings: tuple[Meeting, ...]) -> Prefixes:
    """The parts of the prefixes that are in this bucket, as the kernels take whole ones."""
    hashes = np.concatenate([np.empty(0, np.uint64), *(each.prefixes for each in meetings)])
    sizes, n_index, n_alone = (
        np.concatenate([np.empty(0, np.int32), *(getattr(each, name) for each in meetings)])
        for name in ("n_prefix", "n_index", "n_alone")
    )
    starts = starts_of(sizes)
    cells, shift = count_hashes(hashes, starts, sizes, len(hashes))
    sketches = np.zeros((len(sets), WORDS), np.uint64)
    sketch_sets(sets.hashes, sets.starts, sets.sizes, 0, len(sets), sketches)
    return Prefixes(hashes, starts, sizes, cells, shift, n_index, n_alone, sketches)


def _range_length(bits: int, n_ranges: int) -> int:
    return -(-(1 << bits) // n_ranges)
