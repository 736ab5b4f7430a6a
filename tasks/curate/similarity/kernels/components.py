"""Kernel: connected components of the graph of all similar pairs.

Called by `tasks/curate/similarity/join.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.curate.similarity.kernels.overlap import SLACK, jaccard, remember
from tasks.curate.similarity.kernels.sketches import is_apart
from tasks.kernels.kernel import Part, kernel

_U = np.uint64
TEXT, NEXT, BELOW, LEFT = 0, 1, 2, 3


@Part
def _find(parents: Any, d: Any) -> Any:
    while parents[d] != d:
        parents[d] = parents[parents[d]]
        d = parents[d]
    return d


@kernel(
    "u64[] i64[] i32[] u64[,] u64[] i64[] i32[] i32[] i32[] u8[] u64 f64 i64[] i64[] i64[] i64 "
    "u64[] i32[] i32[,] i32[] i64[]"
)
def connect_components(
    hashes: Any,
    starts: Any,
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
    parents: Any,
    tried: Any,
    max_comparisons: Any,
    slot_key: Any,
    slot_node: Any,
    nodes: Any,
    compared: Any,
    table: Any,
) -> int:
    """Union-find over all pairs with J >= threshold; returns the number of comparisons, one too many when refused.

    The texts that hold one prefix shingle are kept as chains, each within one component: a text that has joined a
    component skips the whole chain, so copies of one text cost one comparison each.

    Args:
        cells: How many prefixes hold a hash of a cell (`hash >> shift`); alone in its cell, it finds nobody.
        order: The texts that have a prefix, smallest first.
        parents: Each text's own number; filled with the smallest number of its component.
        tried: 0; filled with each text's comparisons.
        slot_key: Hash table, a power of two, at least twice the number of nodes.
        slot_node: -1, as long: the first node of the key's list.
        nodes: One per hash of `n_index`: text, next chain of the list, next text of the chain, and how many of the
            text's hashes are not rarer.
        compared: -1 per text.
        table: -1, a power of two, at least four times the largest size and 64.
    """
    last_slot = slot_key.shape[0] - 1
    n_nodes, n_compared = 0, 0
    apart = (1.0 - threshold) / (1.0 + threshold)  # J >= t allows this share of both sizes as symmetric difference
    common = threshold / (1.0 + threshold)  # and asks for this share as common hashes
    for q in range(order.shape[0]):
        d = order[q]
        size, start = np.int64(sizes[d]), starts[d]
        least_size = threshold * size - SLACK
        mask = np.int64(-1)
        root = _find(parents, d)
        left = size - n_alone[d]
        for place in range(n_prefix[d]):
            value = prefixes[prefix_starts[d] + place]
            if cells[value >> shift] < 2:
                continue
            slot = np.int64(value >> _U(20)) & last_slot
            while slot_node[slot] != -1 and slot_key[slot] != value:
                slot = (slot + 1) & last_slot
            chain, mine = slot_node[slot], np.int32(-1)
            while chain != -1:
                head = nodes[chain, TEXT]
                if _find(parents, head) == root:
                    mine = chain
                elif sizes[head] >= least_size:  # the newest of a chain is its longest
                    node = chain
                    while node != -1:
                        other = nodes[node, TEXT]
                        if sizes[other] < least_size:
                            break
                        if compared[other] != d:
                            compared[other] = d
                            # Met for the first time at the rarest hash they share: no rarer one is common.
                            if min(left - place, nodes[node, LEFT]) < common * (size + sizes[other]) - SLACK:
                                node = nodes[node, BELOW]
                                continue
                            if n_compared >= max_comparisons:
                                return n_compared + 1
                            n_compared += 1
                            tried[d] += 1
                            if is_apart(sketches, d, other, apart * (size + sizes[other]) + SLACK):
                                node = nodes[node, BELOW]
                                continue
                            if mask == -1:
                                mask = remember(hashes, start, size, table)
                            if (
                                jaccard(hashes, start, size, table, mask, starts[other], sizes[other], threshold)
                                >= threshold
                            ):
                                parents[_find(parents, other)] = root
                                mine = chain
                                break
                        node = nodes[node, BELOW]
                chain = nodes[chain, NEXT]
            if place >= n_index[d]:
                continue
            if mine == -1:
                nodes[n_nodes, TEXT], nodes[n_nodes, LEFT] = d, left - place
                nodes[n_nodes, NEXT], nodes[n_nodes, BELOW] = slot_node[slot], -1
                slot_node[slot] = n_nodes
                slot_key[slot] = value
            else:
                # The chain's head keeps its place in the list; its text moves one down.
                nodes[n_nodes, TEXT], nodes[n_nodes, LEFT] = nodes[mine, TEXT], nodes[mine, LEFT]
                nodes[n_nodes, BELOW], nodes[mine, BELOW] = nodes[mine, BELOW], n_nodes
                nodes[mine, TEXT], nodes[mine, LEFT] = d, left - place
            n_nodes += 1
    # From here on `compared` holds, for each root, the smallest number met so far, then each text's component.
    for d in range(sizes.shape[0]):
        compared[d] = -1
    for d in range(sizes.shape[0]):
        root = _find(parents, d)
        if compared[root] == -1:
            compared[root] = d
    for d in range(sizes.shape[0]):
        tried[d] = compared[_find(parents, d)]
    for d in range(sizes.shape[0]):
        parents[d] = tried[d]
    return n_compared
