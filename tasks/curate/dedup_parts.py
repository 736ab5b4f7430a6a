"""Dedup in parts: the decisions of `tasks/curate/similarity/families.py`, found by texts meeting in buckets.

1. Each part makes sets and keys of its rows. Keys meet by bucket: of equal texts the first in the order speaks for all.
2. Hashes are counted over all parts, in cells. By these counts, the same everywhere, each part chooses the rare prefix
   of each text and sends word of the text (its size, its sketch) to the bucket of each shingle of the prefix.
3. Two texts with J >= threshold have the rarest shingle that they share in both prefixes, and meet in its bucket. There
   those are marked whose size, sketch and place of that shingle allow a similar one, and their sets are sent for. The
   kernel of `join.py` verifies the pairs, or knows them to be connected by verified pairs already. That a text lies in
   a bucket with a part of its prefix only makes the kernels rule out less: the places of shingles in it are lower.
   Each bucket gives a forest of connected texts, never all pairs, and the forests together the components.
4. No pair with J >= threshold leaves a component, so each is walked alone, in the declared order: the decisions are
   those of walking all texts.

What travels grows with the data: texts once, keys once, four bytes of each shingle, eight of each in a prefix and about
fifty of each text for each bucket that it meets; sets of marked texts for each bucket in which they are, and once more
for those in company. The counts, at most 256 MiB, go to every node.
`max_comparisons` holds for each bucket and for each pack of components. Called by `tasks/curate/dedup.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.curation_steps import DedupStep
from tasks.curate.dedup_work import (
    both,
    cells_of_piece,
    connect_bucket,
    count_range,
    first_of_equal,
    mark_bucket,
    meet,
    pick,
    shingle_piece,
    walk_pack,
)
from tasks.curate.row_groups import cut, packed, row_ranges
from tasks.curate.similarity.families import Decisions
from tasks.curate.similarity.join import CrowdedFamilyError, cell_bits
from tasks.spread import Spread

LEAST_ROWS = 1 << 10
MOST_ROWS = 1 << 19
"""Rows of a part, at least and at most: its sets are held by one worker at a time."""


def decide_in_parts(
    batches: Iterable[pa.Table], step: DedupStep, *, order: Any, spread: Spread, where: str
) -> Decisions:
    """As `decide`, of the rows of a table with the columns that are compared.

    Args:
        batches: Its rows; those of a part are held.
        order: int64, all row numbers, preferred first.

    Raises:
        CrowdedFamilyError: a bucket or a pack of components needed more than `max_comparisons`; its members are rows.
    """
    n_rows = len(order)
    ranks = np.empty(n_rows, np.int64)
    ranks[order] = np.arange(n_rows)
    n_parts = max(spread.n_parts, -(-n_rows // MOST_ROWS))
    ranges = row_ranges(n_rows, n_parts, at_least=LEAST_ROWS)
    n_buckets = len(ranges)
    made = spread.hold(
        shingle_piece,
        (
            (packed(rows), ranks[start:stop], step, n_buckets)
            for rows, (start, stop) in zip(cut(batches, ranges), ranges, strict=True)
        ),
        n_outputs=1 + n_buckets,
    )
    held, keys = [handles[0] for handles in made], [handles[1:] for handles in made]
    firsts, empty, n_hashes = _firsts(spread, keys, n_rows)
    kept, score, component, n_compared = np.arange(n_rows), np.ones(n_rows), np.arange(n_rows), 0
    if step.near:
        is_first = (firsts == np.arange(n_rows))[ranks]
        texts = [np.flatnonzero(is_first[start:stop]) for start, stop in ranges]
        limits = (step.threshold, step.max_comparisons, where)
        try:
            component, n_connected = _components(spread, held, ranges, order, texts, cell_bits(n_hashes), limits)
            kept, score, n_walked = _walked(spread, held, ranges, order, component, limits)
            n_compared = n_connected + n_walked
        except CrowdedFamilyError as error:
            members = np.flatnonzero(np.isin(firsts[ranks], error.members)).tolist()
            raise CrowdedFamilyError(members=members, max_comparisons=step.max_comparisons, where=where) from None
    of = firsts[ranks]
    return Decisions(
        kept=order[kept[of]],
        score=score[of],
        exact=kept[of] == of,
        empty=empty[ranks],
        component=order[component[of]],
        n_comparisons=n_compared,
    )


def _firsts(spread: Spread, keys: Sequence[Sequence[Any]], n_rows: int) -> tuple[Any, Any, int]:
    """By rank: the rank of the first equal text, and whether it has no word; and the hashes of all that are first."""
    firsts, empty, n_hashes = np.arange(n_rows), np.zeros(n_rows, bool), 0
    for bucket in spread.each(first_of_equal, zip(*keys, strict=True)):
        firsts[bucket.ranks] = bucket.firsts
        empty[bucket.ranks] = bucket.empty
        n_hashes += bucket.n_hashes
    return firsts, empty, n_hashes


def _components(
    spread: Spread,
    held: Sequence[Any],
    ranges: Sequence[tuple[int, int]],
    order: Any,
    texts: Sequence[Any],
    bits: int,
    limits: tuple[float, int, str],
) -> tuple[Any, int]:
    """By rank: the smallest rank of its component; its own where it is alone. And the comparisons made."""
    n_buckets = len(held)
    cells = spread.hold(cells_of_piece, zip(held, texts, repeat(bits), repeat(n_buckets)), n_outputs=n_buckets)
    counts = spread.hold(
        count_range, ((bits, n_buckets, *several) for several in zip(*cells, strict=True)), n_outputs=1
    )
    del cells
    meetings = spread.hold(
        meet,
        (
            (piece, some, limits[0], bits, n_buckets, *(count for (count,) in counts))
            for piece, some in zip(held, texts, strict=True)
        ),
        n_outputs=n_buckets,
    )
    del counts
    marked = spread.hold(mark_bucket, ((*limits[:2], *several) for several in zip(*meetings, strict=True)), n_outputs=3)
    del meetings
    candidates, n_compared = [], 0
    for ranks, n_made in spread.each(both, ((ranks, n_made) for ranks, _, n_made in marked)):
        if n_made > limits[1]:
            raise CrowdedFamilyError(members=ranks.tolist(), max_comparisons=limits[1], where=limits[2])
        candidates.append(np.array(ranks))
        n_compared += n_made
    buckets = np.repeat(np.arange(n_buckets), [len(ranks) for ranks in candidates])
    picked = _picked(spread, held, ranges, order[np.concatenate(candidates)], buckets)
    joined = [np.empty((0, 2), np.int64)]
    meetings_of = (meeting for _, meeting, _ in marked)
    for found in spread.each(
        connect_bucket,
        ((*limits, meeting, *several) for meeting, several in zip(meetings_of, zip(*picked, strict=True), strict=True)),
    ):
        ranks, others, n_made = _not_refused(found, limits)
        joined.append(np.stack([ranks, others], axis=1))
        n_compared += n_made
    return _smallest_of_component(np.concatenate(joined), len(order)), n_compared


def _walked(
    spread: Spread, held: Sequence[Any], ranges: Sequence[tuple[int, int]], order: Any, component: Any,
    limits: tuple[float, int, str],
) -> tuple[Any, Any, int]:  # fmt: skip
    """By rank: the rank that is kept in its place (its own when it stays), and J of the two. And the comparisons."""
    n_rows, n_packs = len(component), len(held)
    sizes = np.bincount(component, minlength=n_rows)
    in_company = np.flatnonzero(sizes[component] > 1)
    kept, score, n_compared = np.arange(n_rows), np.ones(n_rows), 0
    if not len(in_company):
        return kept, score, 0
    # Whole components one after the other, cut into packs of about as many texts.
    several = np.where(sizes > 1, sizes, 0)
    pack_of = (np.cumsum(several) - several) * n_packs // len(in_company)
    picked = _picked(spread, held, ranges, order[in_company], pack_of[component[in_company]])
    for found in spread.each(walk_pack, ((*limits, *several) for several in zip(*picked, strict=True))):
        gone, instead, similarity, n_made = _not_refused(found, limits)
        kept[gone], score[gone] = instead, similarity
        n_compared += n_made
    return kept, score, n_compared


def _picked(
    spread: Spread, held: Sequence[Any], ranges: Sequence[tuple[int, int]], rows: Any, packs: Any
) -> list[tuple[Any, ...]]:
    """The sets of these rows, of each part by pack; a row may be in several packs."""
    by_row = np.argsort(rows, kind="stable")
    rows, packs = rows[by_row], packs[by_row]
    bounds = np.searchsorted(rows, [start for start, _ in ranges] + [ranges[-1][1]])
    return spread.hold(
        pick,
        (
            (piece, rows[low:high] - start, packs[low:high], len(held))
            for piece, (start, _), low, high in zip(held, ranges, bounds[:-1], bounds[1:], strict=True)
        ),
        n_outputs=len(held),
    )


def _not_refused(found: Any, limits: tuple[float, int, str]) -> Any:
    if isinstance(found, list):
        raise CrowdedFamilyError(members=found, max_comparisons=limits[1], where=limits[2])
    return found


def _smallest_of_component(joined: Any, n_rows: int) -> Any:
    """From pairs of connected ranks."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    component = np.arange(n_rows)
    if not len(joined):
        return component
    ranks, places = np.unique(joined, return_inverse=True)
    left, right = places.reshape(joined.shape).T
    graph = coo_array((np.ones(len(joined), np.int8), (left, right)), shape=(len(ranks), len(ranks)))
    _, labels = connected_components(graph, directed=False)
    _, smallest = np.unique(labels, return_index=True)  # ranks ascend: the first of a label is its smallest
    component[ranks] = ranks[smallest[labels]]
    return component
