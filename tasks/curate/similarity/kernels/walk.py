"""Kernel: go through texts in an order, look each up among those before it, and find its best or all its partners.

Called by `tasks/curate/similarity/join.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.curate.similarity.kernels.overlap import SLACK, jaccard, remember
from tasks.curate.similarity.kernels.sketches import is_apart
from tasks.kernels.kernel import kernel

_U = np.uint64

LOOK, ADD_IF_ALONE, ADD, EMIT = 1, 2, 4, 8
"""What a text does: look for partners, be found later unless it has one, be found later, list all its partners."""


@kernel(
    "u64[] i64[] i32[] u64[,] u64[] i64[] i32[] u8[] u64 f64 i64[] u8[] i64[] i64 u64[] i32[] i32[,] i32[] i64[] "
    "i64[] f64[] i32[,] f64[] i64[]"
)
def walk(
    hashes: Any,
    starts: Any,
    sizes: Any,
    sketches: Any,
    prefixes: Any,
    prefix_starts: Any,
    n_prefix: Any,
    cells: Any,
    shift: Any,
    threshold: Any,
    order: Any,
    actions: Any,
    tried: Any,
    max_comparisons: Any,
    slot_key: Any,
    slot_node: Any,
    nodes: Any,
    compared: Any,
    table: Any,
    best: Any,
    best_score: Any,
    pairs: Any,
    pair_scores: Any,
    state: Any,
) -> int:
    """Go through the texts in `order`; returns 0 at the end, 1 when `pairs` may be too short for the next text, 2 when
    a comparison too many was needed.

    Arguments not named here are those of `connect_components`.

    Args:
        order: Texts to go through; the walk goes on at `state[0]`.
        actions: Per text, what it does.
        compared: -1 per text, as all work arrays at first; a walk that goes on takes them as it left them.
        best: -1 per text; filled with its most similar partner, of equally similar ones the lowest number.
        best_score: 0.0 per text; filled with their J.
        pairs: Filled with pairs of texts, lower number first, by those that list all.
        state: Place in `order`, nodes, comparisons, pairs; all 0 at first.
    """
    last_slot = slot_key.shape[0] - 1
    n_nodes, n_compared, n_pairs = state[1], state[2], state[3]
    apart = (1.0 - threshold) / (1.0 + threshold)  # as in `connect_components`
    for q in range(state[0], order.shape[0]):
        d = order[q]
        size, start, action = np.int64(sizes[d]), starts[d], actions[d]
        first, end = prefix_starts[d], prefix_starts[d] + n_prefix[d]
        state[0], state[1], state[2], state[3] = q, n_nodes, n_compared, n_pairs
        if action & EMIT and n_pairs + n_nodes > pairs.shape[0]:
            return 1
        if action & LOOK:
            mask = np.int64(-1)
            for k in range(first, end):
                value = prefixes[k]
                if cells[value >> shift] < 2:
                    continue
                slot = np.int64(value >> _U(20)) & last_slot
                while slot_node[slot] != -1 and slot_key[slot] != value:
                    slot = (slot + 1) & last_slot
                node = slot_node[slot]
                while node != -1:
                    other = np.int64(nodes[node, 0])
                    node = nodes[node, 1]
                    n_other = np.int64(sizes[other])
                    if compared[other] == d or n_other < threshold * size - SLACK:
                        continue
                    compared[other] = d
                    if size < threshold * n_other - SLACK:
                        continue
                    if n_compared >= max_comparisons:
                        return 2
                    n_compared += 1
                    tried[d] += 1
                    if is_apart(sketches, d, other, apart * (size + n_other) + SLACK):
                        continue
                    if mask == -1:
                        mask = remember(hashes, start, size, table)
                    least = threshold if action & EMIT else max(threshold, best_score[d])
                    score = jaccard(hashes, start, size, table, mask, starts[other], n_other, least)
                    if score < threshold:
                        continue
                    if score > best_score[d] or (score == best_score[d] and other < best[d]):
                        best[d], best_score[d] = other, score
                    if action & EMIT:
                        pairs[n_pairs, 0], pairs[n_pairs, 1], pair_scores[n_pairs] = min(d, other), max(d, other), score
                        n_pairs += 1
        if action & ADD or (action & ADD_IF_ALONE and best[d] == -1):
            for k in range(first, end):
                value = prefixes[k]
                if cells[value >> shift] < 2:
                    continue
                slot = np.int64(value >> _U(20)) & last_slot
                while slot_node[slot] != -1 and slot_key[slot] != value:
                    slot = (slot + 1) & last_slot
                nodes[n_nodes, 0], nodes[n_nodes, 1] = d, slot_node[slot]
                slot_node[slot], slot_key[slot] = n_nodes, value
                n_nodes += 1
    state[0], state[1], state[2], state[3] = order.shape[0], n_nodes, n_compared, n_pairs
    return 0
