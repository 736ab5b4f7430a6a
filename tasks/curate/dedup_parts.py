"""Dedup in parts: make the decisions of `tasks/curate/similarity/families.py` by comparing texts in buckets.

1. Each part makes sets and keys of its rows. Keys are grouped by bucket: of equal texts the first in the order
   represents all.
2. Hashes are counted over all parts, in cells. From these counts, the same everywhere, each part chooses the rare
   prefix of each text and sends its size and sketch to the bucket of each shingle of the prefix.
3. Two texts with J >= threshold have the rarest shingle that they share in both prefixes, so both are in its bucket.
   There texts are marked whose size, sketch and place of that shingle allow a similar one, and their sets are fetched.
   The kernel of `join.py` verifies the pairs, unless verified pairs already connect them. A bucket holds only a part of
   a text's prefix, so places of shingles are lower and the kernels rule out less, never more.
   Each bucket gives a forest of connected texts, never all pairs, and all forests together give the components.
4. No pair with J >= threshold crosses components, so each is walked alone, in the declared order: the decisions are
   those of walking all texts.

The data sent between workers grows with the texts: texts once, keys once, four bytes of each shingle, eight of each in
a prefix and about fifty of each text for each of its buckets; sets of marked texts for each of their buckets, and once
more for those that are not alone in their component. The counts, at most 256 MiB, go to every node.
`max_comparisons` holds for each bucket and for each pack of components. Called by `tasks/curate/dedup.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.curation_steps import DedupStep
from tasks.compute.spread import Spread
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
from tasks.curate.similarity.join import CrowdedFamilyError, JoinLimits, cell_bits

LEAST_ROWS = 1 << 10
MOST_ROWS = 1 << 19
"""Fewest and most rows of a part: one worker holds its sets at a time."""


def decide_in_parts(
    batches: Iterable[pa.Table], step: DedupStep, *, order: Any, spread: Spread, where: str
) -> Decisions:
    """Like `decide`, for the rows of a table with the columns that are compared.

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
        limits = JoinLimits(step.threshold, step.max_comparisons, where)
        parts = _Parts(spread, held, ranges, order)
        try:
            component, n_connected = _connect(parts, texts, cell_bits(n_hashes), limits)
            kept, score, n_walked = _walk(parts, component, limits)
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
    """Return by rank the first equal text and whether it has no word, and the number of hashes of all firsts."""
    firsts, empty, n_hashes = np.arange(n_rows), np.zeros(n_rows, bool), 0
    for bucket in spread.each(first_of_equal, zip(*keys, strict=True)):
        firsts[bucket.ranks] = bucket.firsts
        empty[bucket.ranks] = bucket.empty
        n_hashes += bucket.n_hashes
    return firsts, empty, n_hashes


@dataclass(frozen=True)
class _Parts:
    """The parts on the workers."""

    spread: Spread
    held: Sequence[Any]
    """Handle of each part's sets."""
    ranges: Sequence[tuple[int, int]]
    """Rows of each part."""
    order: Any
    """int64: row by rank."""


def _connect(parts: _Parts, texts: Sequence[Any], bits: int, limits: JoinLimits) -> tuple[Any, int]:
    """Return by rank the smallest rank of its component (its own if alone), and the number of comparisons."""
    spread, held = parts.spread, parts.held
    n_buckets = len(held)
    cells = spread.hold(cells_of_piece, zip(held, texts, repeat(bits), repeat(n_buckets)), n_outputs=n_buckets)
    counts = spread.hold(
        count_range, ((bits, n_buckets, *several) for several in zip(*cells, strict=True)), n_outputs=1
    )
    del cells
    meetings = spread.hold(
        meet,
        (
            (piece, some, limits.threshold, bits, n_buckets, *(count for (count,) in counts))
            for piece, some in zip(held, texts, strict=True)
        ),
        n_outputs=n_buckets,
    )
    del counts
    marked = spread.hold(mark_bucket, ((*limits[:2], *several) for several in zip(*meetings, strict=True)), n_outputs=3)
    del meetings
    candidates, n_compared = [], 0
    for ranks, n_made in spread.each(both, ((ranks, n_made) for ranks, _, n_made in marked)):
        if n_made > limits.max_comparisons:
            raise _refusal(ranks.tolist(), limits)
        candidates.append(np.array(ranks))
        n_compared += n_made
    buckets = np.repeat(np.arange(n_buckets), [len(ranks) for ranks in candidates])
    picked = _pick(parts, parts.order[np.concatenate(candidates)], buckets)
    joined = [np.empty((0, 2), np.int64)]
    meetings_of = (meeting for _, meeting, _ in marked)
    for found in spread.each(
        connect_bucket,
        ((limits, meeting, *several) for meeting, several in zip(meetings_of, zip(*picked, strict=True), strict=True)),
    ):
        ranks, others, n_made = _not_refused(found, limits)
        joined.append(np.stack([ranks, others], axis=1))
        n_compared += n_made
    return _smallest_of_component(np.concatenate(joined), len(parts.order)), n_compared


def _walk(parts: _Parts, component: Any, limits: JoinLimits) -> tuple[Any, Any, int]:
    """Return by rank the rank that is kept instead (its own if it stays) and J, and the number of comparisons."""
    n_rows, n_packs = len(component), len(parts.held)
    sizes = np.bincount(component, minlength=n_rows)
    in_company = np.flatnonzero(sizes[component] > 1)
    kept, score, n_compared = np.arange(n_rows), np.ones(n_rows), 0
    if not len(in_company):
        return kept, score, 0
    # Whole components one after the other, cut into packs of about as many texts.
    several = np.where(sizes > 1, sizes, 0)
    pack_of = (np.cumsum(several) - several) * n_packs // len(in_company)
    picked = _pick(parts, parts.order[in_company], pack_of[component[in_company]])
    for found in parts.spread.each(walk_pack, ((limits, *several) for several in zip(*picked, strict=True))):
        gone, instead, similarity, n_made = _not_refused(found, limits)
        kept[gone], score[gone] = instead, similarity
        n_compared += n_made
    return kept, score, n_compared


def _pick(parts: _Parts, rows: Any, packs: Any) -> list[tuple[Any, ...]]:
    """Return the sets of these rows, of each part by pack; a row may be in several packs."""
    by_row = np.argsort(rows, kind="stable")
    rows, packs = rows[by_row], packs[by_row]
    bounds = np.searchsorted(rows, [start for start, _ in parts.ranges] + [parts.ranges[-1][1]])
    return parts.spread.hold(
        pick,
        (
            (piece, rows[low:high] - start, packs[low:high], len(parts.held))
            for piece, (start, _), low, high in zip(parts.held, parts.ranges, bounds[:-1], bounds[1:], strict=True)
        ),
        n_outputs=len(parts.held),
    )


def _not_refused(found: Any, limits: JoinLimits) -> Any:
    if isinstance(found, list):
        raise _refusal(found, limits)
    return found


def _refusal(members: list[int], limits: JoinLimits) -> CrowdedFamilyError:
    return CrowdedFamilyError(members=members, max_comparisons=limits.max_comparisons, where=limits.where)


def _smallest_of_component(joined: Any, n_rows: int) -> Any:
    """Return by rank the smallest rank of its component, from pairs of connected ranks."""
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
