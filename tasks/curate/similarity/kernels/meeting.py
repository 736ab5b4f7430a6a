"""Kernel: which texts of a bucket may have a similar one in it, told without their sets.

A text comes with the part of its prefix that is in the bucket, its size and its sketch. Two that are similar and meet
here for the first time at the rarest shingle that they share pass both tests; so every similar pair of the bucket is
marked, and few others. Called by `tasks/curate/dedup_work.py`, which compares the marked ones by their sets.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.curate.similarity.kernels.overlap import SLACK
from tasks.curate.similarity.kernels.sketches import is_apart
from tasks.kernels.kernel import kernel

_U = np.uint64
TEXT, NEXT, LEFT = 0, 1, 2


@kernel("i32[] u64[,] u64[] i64[] i32[] i32[] i32[] u8[] u64 f64 i64[] u8[] i64[] i64 u64[] i32[] i32[] i32[,] i32[]")
def mark_candidates(
    sizes: Any,
    sketches: Any,
    prefixes: Any,
    prefix_starts: Any,
    n_prefix: Any,
    n_index: Any,
    n_alone: Any,
    cells: Any,
    shift: Any,
    threshold: Any,
    order: Any,
    marked: Any,
    tried: Any,
    max_comparisons: Any,
    slot_key: Any,
    slot_open: Any,
    slot_marked: Any,
    nodes: Any,
    compared: Any,
) -> int:
    """Mark texts that may be similar to another; returns the number of comparisons, one too many when refused.

    Two that are marked already are not compared any more, so that copies of one text cost one comparison each: a slot
    keeps those apart that are not marked.

    Arguments not named here are those of `connect_components`.

    Args:
        marked: 0; filled with 1.
        slot_open: -1 per slot: the first node of texts that were not marked when they came, smallest last.
        slot_marked: -1 per slot: the first node of those that were.
        nodes: One per hash of `n_index`: text, next of the list, and how many of the text's hashes are not rarer.
    """
    last_slot = slot_key.shape[0] - 1
    n_nodes, n_compared = 0, 0
    apart = (1.0 - threshold) / (1.0 + threshold)  # as in `connect_components`
    common = threshold / (1.0 + threshold)
    for q in range(order.shape[0]):
        d = order[q]
        size = np.int64(sizes[d])
        least_size = threshold * size - SLACK
        left = size - n_alone[d]
        for place in range(n_prefix[d]):
            value = prefixes[prefix_starts[d] + place]
            if cells[value >> shift] < 2:
                continue
            slot = np.int64(value >> _U(20)) & last_slot
            while (slot_open[slot] != -1 or slot_marked[slot] != -1) and slot_key[slot] != value:
                slot = (slot + 1) & last_slot
            before, node = np.int32(-1), slot_open[slot]
            while node != -1:
                other, after = nodes[node, TEXT], nodes[node, NEXT]
                if marked[other]:
                    if before == -1:
                        slot_open[slot] = after
                    else:
                        nodes[before, NEXT] = after
                    nodes[node, NEXT] = slot_marked[slot]
                    slot_marked[slot] = node
                    node = after
                    continue
                if sizes[other] < least_size:
                    break
                if compared[other] != d:
                    compared[other] = d
                    if min(left - place, nodes[node, LEFT]) >= common * (size + sizes[other]) - SLACK:
                        if n_compared >= max_comparisons:
                            return n_compared + 1
                        n_compared += 1
                        tried[d] += 1
                        if not is_apart(sketches, d, other, apart * (size + sizes[other]) + SLACK):
                            marked[d], marked[other] = 1, 1
                before, node = node, after
            node = slot_marked[slot]
            while node != -1 and not marked[d]:
                other = nodes[node, TEXT]
                if compared[other] != d and sizes[other] >= least_size:
                    compared[other] = d
                    if min(left - place, nodes[node, LEFT]) >= common * (size + sizes[other]) - SLACK:
                        if n_compared >= max_comparisons:
                            return n_compared + 1
                        n_compared += 1
                        tried[d] += 1
                        if not is_apart(sketches, d, other, apart * (size + sizes[other]) + SLACK):
                            marked[d] = 1
                node = nodes[node, NEXT]
            if place >= n_index[d]:
                continue
            nodes[n_nodes, TEXT], nodes[n_nodes, LEFT] = d, left - place
            if marked[d]:
                nodes[n_nodes, NEXT] = slot_marked[slot]
                slot_marked[slot] = n_nodes
            else:
                nodes[n_nodes, NEXT] = slot_open[slot]
                slot_open[slot] = n_nodes
            slot_key[slot] = value
            n_nodes += 1
    return n_compared
