"""The exact set-similarity join: every pair of texts with Jaccard similarity >= a threshold, and none below it.

Exact for the 64-bit hashes of shingles; `tasks/curate/similarity/kernels/tokenise.py` says how often two of them
collide. The result equals comparing all pairs. Nothing is sampled, and neither threads nor the order of rows change it.
Texts of fewer words than a shingle are similar to none.

Limit: a family of texts that are all alike but just below the threshold, and differ in words that are commoner than
those they share, is compared pair by pair. Comparisons are counted, and more than `max_comparisons` are refused: see
`CrowdedFamilyError`.

Imported by dedup, decontaminate and label_check inside functions, since it imports numba.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from schemas.errors import DataError
from tasks.compute.threads import in_slices, n_threads
from tasks.curate.similarity.kernels import comparing
from tasks.curate.similarity.kernels import prefixes as prefix_kernels
from tasks.curate.similarity.kernels.comparing import ADD, EMIT, LOOK, WORDS, sketch_sets
from tasks.curate.similarity.shingles import ShingleSets, power_of_two, shingles_of_texts, starts_of

MAX_COMPARISONS = 200_000_000
SLICED_FROM = 10_000
"""Number of texts from which threads share the choice of prefixes."""


class CrowdedFamilyError(DataError):
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


class JoinLimits(NamedTuple):
    """What counts as similar, and when to stop."""

    threshold: float
    """Least J of similar texts."""
    max_comparisons: int
    where: str
    """Place in pipelines.yaml, for errors."""


class SimilarPairs(NamedTuple):
    """Pairs of text numbers, left < right, ordered; and their J."""

    left: Any
    right: Any
    jaccard: Any


@dataclass(frozen=True)
class Prefixes:
    """The rare prefix of each text that may have a partner, and how often its hashes' cells occur in all prefixes."""

    hashes: Any
    starts: Any
    sizes: Any
    cells: Any
    shift: Any
    n_index: Any
    """int32: of each prefix the part by which texts that are not smaller find the text."""
    n_alone: Any
    """int32: hashes that are rarer than those of the prefix, as no other text has them."""
    sketches: Any
    """uint64 (n, 4): see `tasks/curate/similarity/kernels/comparing.py`."""


def similar_pairs(
    texts: pa.ChunkedArray | Iterable[str],
    *,
    n_words: int,
    threshold: float,
    max_comparisons: int = MAX_COMPARISONS,
    where: str = "curate",
) -> SimilarPairs:
    """Return every pair of texts with J >= threshold, by their places in `texts`.

    Texts are compared in normal form. Equal texts are similar too (J = 1) if they have a shingle; if there are many
    copies, pass each normal form once.

    Raises:
        CrowdedFamilyError: more than `max_comparisons` comparisons are needed.
    """
    sets = shingles_of_texts(texts, n_words=n_words)
    return all_pairs(sets, threshold=threshold, max_comparisons=max_comparisons, where=where)


def all_pairs(sets: ShingleSets, *, threshold: float, max_comparisons: int, where: str) -> SimilarPairs:
    """`similar_pairs` of texts that are already shingled."""
    prefixes = choose_prefixes(sets, threshold=threshold)
    actions = np.full(len(sets), LOOK | ADD | EMIT, np.uint8)
    limits = JoinLimits(threshold, max_comparisons, where)
    walked = walk(sets, prefixes, order=by_size(sets, prefixes), actions=actions, limits=limits)
    order = np.lexsort((walked.pairs[:, 1], walked.pairs[:, 0]))
    return SimilarPairs(walked.pairs[order, 0], walked.pairs[order, 1], walked.pair_scores[order])


def connect_components(
    sets: ShingleSets, prefixes: Prefixes, *, threshold: float, max_comparisons: int, where: str
) -> tuple[Any, int]:
    """Return the smallest number of each text's component in the graph of all similar pairs, and how many comparisons.

    Raises:
        CrowdedFamilyError: more than `max_comparisons` comparisons are needed.
    """
    parents, tried = np.arange(len(sets)), np.zeros(len(sets), np.int64)
    n_compared = comparing.connect_components(
        sets.hashes, sets.starts, sets.sizes, prefixes.sketches, prefixes.hashes, prefixes.starts, prefixes.sizes,
        prefixes.n_index, prefixes.n_alone, prefixes.cells, prefixes.shift, threshold, by_size(sets, prefixes),
        parents, tried, max_comparisons, *_work_arrays(sets, int(prefixes.n_index.sum(dtype=np.int64))),
    )  # fmt: skip
    if n_compared > max_comparisons:
        raise CrowdedFamilyError(members=family(prefixes, tried), max_comparisons=max_comparisons, where=where)
    return parents, n_compared


def by_size(sets: ShingleSets, prefixes: Prefixes) -> Any:
    """Return the texts that may have a partner, smallest set first, ties by number."""
    active = np.flatnonzero(prefixes.sizes)
    return active[np.argsort(sets.sizes[active], kind="stable")]


def choose_prefixes(sets: ShingleSets, *, threshold: float) -> Prefixes:
    """Count shingles, and choose each text's rare prefix; it is empty for a text that cannot have a partner."""
    cells, shift = count_hashes(sets.hashes, sets.starts, sets.sizes, int(sets.sizes.sum(dtype=np.int64)))
    # A text's prefix has n - ceil(t n) + 1 shingles at most.
    most = sets.sizes - np.ceil(threshold * sets.sizes - 1e-9).astype(np.int64) + 1
    ends = np.concatenate([[0], np.cumsum(np.where(sets.sizes, most, 0))])
    sizes, n_index, n_alone = (np.zeros(len(sets), np.int32) for _ in range(3))
    largest = int(sets.sizes.max(initial=0))
    sketches = np.zeros((len(sets), WORDS), np.uint64)

    def choose(low: int, high: int) -> Any:
        chosen, counts, ties = (
            np.empty(ends[high] - ends[low], np.uint64),
            np.empty(256, np.int64),
            np.empty(largest, np.uint64),
        )
        n_chosen = prefix_kernels.choose_prefixes(
            sets.hashes, sets.starts, sets.sizes, low, high, cells, shift, threshold, chosen, sizes,
            n_index, n_alone, counts, ties,
        )  # fmt: skip
        sketch_sets(sets.hashes, sets.starts, sets.sizes, low, high, sketches)
        return chosen[:n_chosen].copy()

    n_slices = 1 if len(sets) < SLICED_FROM else 4 * n_threads()
    parts = in_slices(choose, np.linspace(0, len(sets), n_slices + 1).astype(int).tolist())
    hashes = np.concatenate(parts)
    starts = starts_of(sizes)
    again, shift = count_hashes(hashes, starts, sizes, len(hashes))
    return Prefixes(hashes, starts, sizes, again, shift, n_index, n_alone, sketches)


class Walked(NamedTuple):
    """The result of a walk: best partner and J per text, and the pairs of texts with the action `EMIT`."""

    best: Any
    score: Any
    pairs: Any
    pair_scores: Any
    n_comparisons: int


def walk(sets: ShingleSets, prefixes: Prefixes, *, order: Any, actions: Any, limits: JoinLimits) -> Walked:
    """Run `comparing.walk` to its end, with more room for pairs whenever it needs it."""
    n, n_nodes = len(sets), int(prefixes.sizes[order].sum(dtype=np.int64))
    work = _work_arrays(sets, n_nodes)
    tried, best, score = np.zeros(n, np.int64), np.full(n, -1, np.int64), np.zeros(n)
    room = 2 * n_nodes + 65_536 if (actions & EMIT).any() else 0
    parts: list[tuple[Any, Any]] = []
    state, outcome = np.zeros(4, np.int64), 1
    while outcome == 1:
        state[3] = 0
        pairs, pair_scores = np.empty((room, 2), np.int32), np.empty(room)
        outcome = comparing.walk(
            sets.hashes, sets.starts, sets.sizes, prefixes.sketches, prefixes.hashes, prefixes.starts, prefixes.sizes,
            prefixes.cells, prefixes.shift, limits.threshold, order, actions, tried, limits.max_comparisons, *work,
            best, score, pairs, pair_scores, state,
        )  # fmt: skip
        parts.append((pairs[: state[3]].copy(), pair_scores[: state[3]].copy()))
    if outcome == 2:
        members = family(prefixes, tried)
        raise CrowdedFamilyError(members=members, max_comparisons=limits.max_comparisons, where=limits.where)
    return Walked(
        best,
        score,
        np.concatenate([pairs for pairs, _ in parts]),
        np.concatenate([scores for _, scores in parts]),
        int(state[2]),
    )


def family(prefixes: Prefixes, tried: Any) -> list[int]:
    """Return the texts that share the most common prefix shingle of the text with the most comparisons."""
    worst = int(np.argmax(tried))
    of = np.repeat(np.arange(len(prefixes.sizes)), prefixes.sizes)
    mine = prefixes.hashes[prefixes.starts[worst] : prefixes.starts[worst] + prefixes.sizes[worst]]
    members = max((of[prefixes.hashes == value] for value in mine), key=len)
    return [int(member) for member in members]


def count_hashes(hashes: Any, starts: Any, sizes: Any, n_hashes: int) -> tuple[Any, Any]:
    """Return how many hashes fall into each cell (up to 255), and the shift from a hash to its cell.

    A cell is the high bits of a hash: there are about as many cells as hashes, at most 2 ** 28.
    """
    bits = min(28, max(10, n_hashes.bit_length()))
    cells, shift = np.zeros(1 << bits, np.uint8), np.uint64(64 - bits)
    prefix_kernels.count_cells(hashes, starts, sizes, shift, cells)
    return cells, shift


def _work_arrays(sets: ShingleSets, n_nodes: int) -> tuple[Any, ...]:
    """Make slot keys, slot nodes, nodes, compared and table, as the kernels describe them."""
    n_slots = power_of_two(max(64, 2 * n_nodes))
    return (
        np.zeros(n_slots, np.uint64),
        np.full(n_slots, -1, np.int32),
        np.empty((n_nodes, 4), np.int32),
        np.full(len(sets), -1, np.int32),
        np.full(power_of_two(max(64, 4 * int(sets.sizes.max(initial=0)))), -1, np.int64),
    )
