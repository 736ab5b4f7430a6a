"""The exact set-similarity join: every pair of texts with Jaccard similarity >= a threshold, and none below it.

Exact for the 64-bit hashes of shingles (`tasks/curate/similarity/tokenise.py` says how often two of them meet): the
result equals comparing all pairs. Nothing is sampled, and neither threads nor the order of rows change it. Texts of
fewer words than a shingle are similar to none.

Limit: a family of texts that are all alike but just below the threshold (alarms with several changing values) is
compared pair by pair. Comparisons are counted, and more than `max_comparisons` are refused: see `CrowdedFamily`.

It knows nothing of tickets. Called by dedup, decontaminate and label_check, inside functions: it imports numba.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from schemas.errors import DataError
from tasks.curate.similarity import matching
from tasks.curate.similarity.kernel import n_threads, run_in_slices
from tasks.curate.similarity.shingles import ShingleSets, shingles_of_texts

MAX_COMPARISONS = 200_000_000


class CrowdedFamily(DataError):
    """More comparisons than allowed: a family of texts nearly repeat each other, just below the threshold."""

    def __init__(self, *, members: list[int], max_comparisons: int, where: str) -> None:
        super().__init__(
            f"more than {max_comparisons} comparisons: {len(members)} texts nearly repeat each other just below the "
            f"threshold",
            code="TG0250",
            where=where,
            hint="drop the template (an alarm, an auto-reply) with a filter rule first, or lower the threshold",
        )
        self.members = members
        """Numbers of the family's texts."""


class SimilarPairs(NamedTuple):
    """Pairs of text numbers, left < right, ordered; and their J."""

    left: Any
    right: Any
    jaccard: Any


class Witnesses(NamedTuple):
    """Per pool text: the number of the most similar held-out text with J >= threshold (-1: none), and their J."""

    held_out: Any
    jaccard: Any


@dataclass(frozen=True)
class Prefixes:
    """The rare prefix of each text that may have a partner, and how often its hashes' cells occur in all prefixes."""

    hashes: Any
    starts: Any
    sizes: Any
    cells: Any
    shift: Any


def similar_pairs(
    texts: pa.ChunkedArray | Iterable[str],
    *,
    n_words: int,
    threshold: float,
    max_comparisons: int = MAX_COMPARISONS,
    where: str = "curate",
) -> SimilarPairs:
    """Every pair of texts with J >= threshold, by their places in `texts`.

    Texts are compared in normal form. Equal texts are similar too (J = 1) when they have a shingle; give each
    normal form once where copies are many.

    Raises:
        CrowdedFamily: more than `max_comparisons` pairs were to be compared.
    """
    sets = shingles_of_texts(texts, n_words=n_words)
    return all_pairs(sets, threshold=threshold, max_comparisons=max_comparisons, where=where)


def similar_across(
    pool: pa.ChunkedArray | Iterable[str],
    held_out: pa.ChunkedArray | Iterable[str],
    *,
    n_words: int,
    threshold: float,
    max_comparisons: int = MAX_COMPARISONS,
    where: str = "curate",
) -> Witnesses:
    """For each pool text the held-out text most similar to it, of equally similar ones the first in `held_out`.

    Raises:
        CrowdedFamily: more than `max_comparisons` pairs were to be compared. Its members are places in
            `held_out` followed by `pool`.
    """
    sides = [
        texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([pa.array(texts, pa.string())])
        for texts in (held_out, pool)
    ]
    n_held_out = len(sides[0])
    sets = shingles_of_texts(
        pa.chunked_array([c.cast(pa.string()) for s in sides for c in s.chunks], pa.string()), n_words=n_words
    )
    actions = np.full(len(sets), matching.LOOK, np.uint8)
    actions[:n_held_out] = matching.ADD
    prefixes = choose_prefixes(sets, threshold=threshold)
    walked = walk(
        sets,
        prefixes,
        threshold=threshold,
        order=np.flatnonzero(prefixes.sizes),
        actions=actions,
        max_comparisons=max_comparisons,
        where=where,
    )
    return Witnesses(walked.best[n_held_out:], walked.score[n_held_out:])


def all_pairs(sets: ShingleSets, *, threshold: float, max_comparisons: int, where: str) -> SimilarPairs:
    """`similar_pairs` of texts already shingled."""
    prefixes = choose_prefixes(sets, threshold=threshold)
    actions = np.full(len(sets), matching.LOOK | matching.ADD | matching.EMIT, np.uint8)
    walked = walk(
        sets,
        prefixes,
        threshold=threshold,
        order=by_size(sets, prefixes),
        actions=actions,
        max_comparisons=max_comparisons,
        where=where,
    )
    order = np.lexsort((walked.pairs[:, 1], walked.pairs[:, 0]))
    return SimilarPairs(walked.pairs[order, 0], walked.pairs[order, 1], walked.pair_scores[order])


def by_size(sets: ShingleSets, prefixes: Prefixes) -> Any:
    """The texts that may have a partner, smallest set first, of equal sizes by number."""
    active = np.flatnonzero(prefixes.sizes)
    return active[np.argsort(sets.sizes[active], kind="stable")]


def choose_prefixes(sets: ShingleSets, *, threshold: float) -> Prefixes:
    """Count shingles, and choose each text's rare prefix; empty for a text that is proven to have no partner."""
    n_hashes = int(sets.sizes.sum(dtype=np.int64))
    cells, shift = _count(sets.hashes, sets.starts, sets.sizes, n_hashes)
    # A text's prefix has n - ceil(t n) + 1 shingles at most.
    most = sets.sizes - np.ceil(threshold * sets.sizes - 1e-9).astype(np.int64) + 1
    ends = np.cumsum(np.where(sets.sizes, most, 0))
    sizes = np.zeros(len(sets), np.int32)

    def choose(low: int, high: int) -> Any:
        room = int(ends[high - 1] - (ends[low - 1] if low else 0))
        chosen = np.empty(room, np.uint64)
        n_chosen = matching.choose_prefixes(
            sets.hashes, sets.starts, sets.sizes, low, high, cells, shift, threshold, chosen, sizes
        )
        return chosen[:n_chosen].copy()

    n_slices = 1 if len(sets) < 10_000 else 4 * n_threads()
    parts = run_in_slices(choose, np.linspace(0, len(sets), n_slices + 1).astype(int).tolist()) if len(sets) else []
    hashes = np.concatenate([np.empty(0, np.uint64), *parts])
    starts = np.zeros(len(sets), np.int64)
    np.cumsum(sizes[:-1], out=starts[1:])
    again, shift = _count(hashes, starts, sizes, len(hashes))
    return Prefixes(hashes, starts, sizes, again, shift)


class Walked(NamedTuple):
    """What a walk found: best partner and J per text, and pairs where they were asked for."""

    best: Any
    score: Any
    pairs: Any
    pair_scores: Any
    n_comparisons: int


def walk(
    sets: ShingleSets,
    prefixes: Prefixes,
    *,
    threshold: float,
    order: Any,
    actions: Any,
    max_comparisons: int,
    where: str,
) -> Walked:
    """Run `matching.walk` to its end, giving it more room for pairs as it asks for it."""
    n, n_nodes = len(sets), int(prefixes.sizes[order].sum(dtype=np.int64))
    n_slots = 1 << max(6, (2 * n_nodes).bit_length())
    slot_key, slot_node = np.zeros(n_slots, np.uint64), np.full(n_slots, -1, np.int32)
    node_text, next_node = np.empty(n_nodes, np.int32), np.empty(n_nodes, np.int32)
    tried, best, score = np.zeros(n, np.int64), np.full(n, -1, np.int64), np.zeros(n)
    room = n_nodes + 1024 if (actions & matching.EMIT).any() else 0
    parts: list[tuple[Any, Any]] = []
    state = np.zeros(5, np.int64)
    order = order.astype(np.int64)
    while state[0] < len(order):
        state[3] = 0
        pairs, pair_scores = np.empty((room, 2), np.int32), np.empty(room)
        matching.walk(
            sets.hashes, sets.starts, sets.sizes, prefixes.hashes, prefixes.starts, prefixes.sizes, threshold, order,
            actions, prefixes.cells, prefixes.shift, slot_key, slot_node, node_text, next_node, tried, best, score,
            pairs, pair_scores, state, max_comparisons,
        )  # fmt: skip
        if state[4]:
            raise CrowdedFamily(members=family(prefixes, tried), max_comparisons=max_comparisons, where=where)
        parts.append((pairs[: state[3]].copy(), pair_scores[: state[3]].copy()))
    return Walked(
        best,
        score,
        np.concatenate([np.empty((0, 2), np.int32), *(pairs for pairs, _ in parts)]),
        np.concatenate([np.empty(0), *(scores for _, scores in parts)]),
        int(state[2]),
    )


def family(prefixes: Prefixes, tried: Any) -> list[int]:
    """The texts that share the most common prefix shingle of the text with the most comparisons."""
    worst = int(np.argmax(tried))
    of = np.repeat(np.arange(len(prefixes.sizes)), prefixes.sizes)
    mine = prefixes.hashes[prefixes.starts[worst] : prefixes.starts[worst] + prefixes.sizes[worst]]
    members = max((of[prefixes.hashes == value] for value in mine), key=len)
    return [int(member) for member in members]


def _count(hashes: Any, starts: Any, sizes: Any, n_hashes: int) -> tuple[Any, Any]:
    """Cells, about as many as hashes and at most 2 ** 28, and the shift that leads from a hash to its cell."""
    bits = min(28, max(10, n_hashes.bit_length()))
    cells, shift = np.zeros(1 << bits, np.uint8), np.uint64(64 - bits)
    matching.count_cells(hashes, starts, sizes, shift, cells)
    return cells, shift
