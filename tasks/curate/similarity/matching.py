"""Kernels of the exact set-similarity join: count, choose rare prefixes, connect components, find best partners.

Texts are sets of 64-bit hashes: text d holds `hashes[starts[d]:starts[d] + sizes[d]]`, distinct, in any order. All
texts with J >= t share a shingle among the rarest n - ceil(t n) + 1 of each, in any total order of shingles; here the
order is (count of the shingle's cell, hash), so shingles that share a cell cost time, never a result.
Source: Chaudhuri, Ganti, Kaushik, "A primitive operator for similarity joins in data cleaning", ICDE 2006; sizes as in
Bayardo, Ma, Srikant, "Scaling up all pairs similarity search", WWW 2007.

It knows nothing of texts or tickets. Called by `tasks/curate/similarity/join.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.curate.similarity.kernel import inlined, kernel

_U = np.uint64
_SLACK = 1e-9  # products such as 0.7 * 10 may exceed the integer they stand for by a rounding error
LOOK, ADD_IF_ALONE, ADD, EMIT = 1, 2, 4, 8
"""What `walk` does with a text: look for partners, be found later unless it has some, be found later, list all."""


@inlined
def _find(parents: Any, d: Any) -> Any:
    while parents[d] != d:
        parents[d] = parents[parents[d]]
        d = parents[d]
    return d


@inlined
def _remember(hashes: Any, start: Any, size: Any, table: Any) -> Any:
    """Put the places of a text's hashes into the table; places outside the text count as empty."""
    mask = 63
    while mask < 2 * size:
        mask = 2 * mask + 1
    for place in range(start, start + size):
        slot = np.int64(hashes[place]) & mask
        while start <= table[slot] < place:
            slot = (slot + 1) & mask
        table[slot] = place
    return mask


@inlined
def _jaccard(hashes: Any, start: Any, size: Any, table: Any, mask: Any, other: Any, n_other: Any, least: Any) -> Any:
    """J of the remembered text and another, or -1.0 as soon as it must be below `least`."""
    need = least / (1.0 + least) * (size + n_other) - _SLACK
    may_miss = n_other - np.int64(np.ceil(need))
    end = start + size
    n_missed = 0
    for place in range(other, other + n_other):
        value = hashes[place]
        slot = np.int64(value) & mask
        while True:
            met = table[slot]
            if met < start or met >= end:
                n_missed += 1
                break
            if hashes[met] == value:
                break
            slot = (slot + 1) & mask
        if n_missed > may_miss:
            return -1.0
    common = n_other - n_missed
    return common / (size + n_other - common)


@kernel("void(uint64[::1], int64[::1], int32[::1], uint64, uint8[::1])")
def count_cells(hashes: Any, starts: Any, sizes: Any, shift: Any, cells: Any) -> None:
    """Add up how many hashes fall into each cell (`hash >> shift`), up to 255."""
    for d in range(starts.shape[0]):
        for place in range(starts[d], starts[d] + sizes[d]):
            cell = hashes[place] >> shift
            if cells[cell] < np.uint8(255):
                cells[cell] += np.uint8(1)


@kernel(
    "int64(uint64[::1], int64[::1], int32[::1], int64, int64, uint8[::1], uint64, float64, uint64[::1], int32[::1])"
)
def choose_prefixes(
    hashes: Any,
    starts: Any,
    sizes: Any,
    low: Any,
    high: Any,
    cells: Any,
    shift: Any,
    threshold: Any,
    prefixes: Any,
    n_prefix: Any,
) -> Any:
    """Write the rare prefix of the texts low to high one after the other; return how many hashes were written.

    Hashes alone in their cell are left out: no other text has them. A text with none left has no partner.
    """
    counts = np.zeros(256, np.int64)
    w = 0
    for d in range(low, high):
        size, start = np.int64(sizes[d]), starts[d]
        n_prefix[d] = 0
        if size == 0:
            continue
        n_alone = 0
        for place in range(start, start + size):
            n_alone += np.int64(cells[hashes[place] >> shift] == 1)
        need = size - np.int64(np.ceil(threshold * size - _SLACK)) + 1 - n_alone
        if need <= 0:
            continue
        counts[:] = 0
        for place in range(start, start + size):
            counts[cells[hashes[place] >> shift]] += 1
        counts[1] = 0
        cut, n_below = 2, 0
        while n_below + counts[cut] < need:
            n_below += counts[cut]
            cut += 1
        first = w
        for place in range(start, start + size):
            count = cells[hashes[place] >> shift]
            if count > 1 and count < cut:
                prefixes[w] = hashes[place]
                w += 1
        # Of the hashes in cells of the last count the smallest.
        n_left = need - n_below
        ties = np.empty(counts[cut], np.uint64)
        k = 0
        for place in range(start, start + size):
            if cells[hashes[place] >> shift] == cut:
                ties[k] = hashes[place]
                k += 1
        if n_left < k:
            ties.sort()
        for k in range(n_left):
            prefixes[w] = ties[k]
            w += 1
        n_prefix[d] = w - first
    return w


@kernel(
    "int64(uint64[::1], int64[::1], int32[::1], uint64[::1], int64[::1], int32[::1], float64, int64[::1], "
    "uint8[::1], uint64, int64[::1], int64[::1], int64)"
)
def connect_components(
    hashes: Any,
    starts: Any,
    sizes: Any,
    prefixes: Any,
    prefix_starts: Any,
    n_prefix: Any,
    threshold: Any,
    order: Any,
    cells: Any,
    shift: Any,
    parents: Any,
    tried: Any,
    max_comparisons: Any,
) -> Any:
    """Union-find over all pairs with J >= threshold; returns the number of comparisons, one too many when refused.

    Texts come by size, smallest first. The texts that hold one shingle are kept as chains, each within one
    component: a text that has joined a component skips the whole chain, so copies of one text cost one comparison
    each. `tried` counts each text's comparisons.
    """
    n_slots = 64
    while n_slots < 2 * prefixes.shape[0]:
        n_slots *= 2
    slot_mask = n_slots - 1
    slot_key = np.zeros(n_slots, np.uint64)
    slot_chain = np.full(n_slots, -1, np.int32)
    node_text = np.empty(prefixes.shape[0] + 1, np.int32)
    next_chain = np.empty(prefixes.shape[0] + 1, np.int32)
    below = np.empty(prefixes.shape[0] + 1, np.int32)
    compared = np.full(sizes.shape[0], -1, np.int32)
    longest = 0
    for d in order:
        longest = max(longest, np.int64(sizes[d]))
    n_table = 64
    while n_table < 4 * longest + 4:
        n_table *= 2
    table = np.full(n_table, -1, np.int64)
    n_nodes, n_compared = 0, 0
    for d in order:
        size, start = np.int64(sizes[d]), starts[d]
        least_size = threshold * size - _SLACK
        mask = np.int64(-1)
        root = _find(parents, d)
        for k in range(prefix_starts[d], prefix_starts[d] + n_prefix[d]):
            value = prefixes[k]
            if cells[value >> shift] < 2:
                continue
            slot = np.int64(value >> _U(20)) & slot_mask
            while slot_chain[slot] != -1 and slot_key[slot] != value:
                slot = (slot + 1) & slot_mask
            chain, mine = slot_chain[slot], np.int32(-1)
            while chain != -1:
                head = node_text[chain]
                if _find(parents, head) == root:
                    mine = chain
                elif sizes[head] >= least_size:  # the newest of a chain is its longest
                    node = chain
                    while node != -1:
                        other = node_text[node]
                        if sizes[other] < least_size:
                            break
                        if compared[other] != d:
                            compared[other] = d
                            if n_compared >= max_comparisons:
                                return n_compared + 1
                            n_compared += 1
                            tried[d] += 1
                            if mask == -1:
                                mask = _remember(hashes, start, size, table)
                            if (
                                _jaccard(hashes, start, size, table, mask, starts[other], sizes[other], threshold)
                                >= threshold
                            ):
                                parents[_find(parents, other)] = root
                                mine = chain
                                break
                        node = below[node]
                chain = next_chain[chain]
            if mine == -1:
                node_text[n_nodes], next_chain[n_nodes], below[n_nodes] = d, slot_chain[slot], -1
                slot_chain[slot] = n_nodes
                slot_key[slot] = value
            else:
                # The chain's head keeps its place in the list; its text moves one down.
                node_text[n_nodes], below[n_nodes], next_chain[n_nodes] = node_text[mine], below[mine], -1
                below[mine] = n_nodes
                node_text[mine] = d
            n_nodes += 1
    return n_compared


@kernel(
    "void(uint64[::1], int64[::1], int32[::1], uint64[::1], int64[::1], int32[::1], float64, int64[::1], uint8[::1], "
    "uint8[::1], uint64, uint64[::1], int32[::1], int32[::1], int32[::1], int64[::1], int64[::1], float64[::1], "
    "int32[:,::1], float64[::1], int64[::1], int64)"
)
def walk(
    hashes: Any,
    starts: Any,
    sizes: Any,
    prefixes: Any,
    prefix_starts: Any,
    n_prefix: Any,
    threshold: Any,
    order: Any,
    actions: Any,
    cells: Any,
    shift: Any,
    slot_key: Any,
    slot_node: Any,
    node_text: Any,
    next_node: Any,
    tried: Any,
    best: Any,
    best_score: Any,
    pairs: Any,
    pair_scores: Any,
    state: Any,
    max_comparisons: Any,
) -> None:
    """Go through the texts in `order`, each looked up among those added so far and then added, as `actions` say.

    `best` and `best_score` get each text's most similar partner, of equal ones the lowest number. With EMIT all
    partners are written to `pairs`; where the room may not suffice for the next text the walk stops before it.

    Args:
        state: Place in `order`, nodes, comparisons, pairs, walks refused (1: a comparison too many); all 0 at first.
    """
    slot_mask = slot_key.shape[0] - 1
    longest = 0
    for d in order:
        longest = max(longest, np.int64(sizes[d]))
    n_table = 64
    while n_table < 4 * longest + 4:
        n_table *= 2
    table = np.full(n_table, -1, np.int64)
    compared = np.full(sizes.shape[0], -1, np.int32)
    n_nodes, n_compared, n_pairs = state[1], state[2], state[3]
    for q in range(state[0], order.shape[0]):
        d = order[q]
        size, start, action = np.int64(sizes[d]), starts[d], actions[d]
        first, end = prefix_starts[d], prefix_starts[d] + n_prefix[d]
        state[0], state[1], state[2], state[3] = q, n_nodes, n_compared, n_pairs
        if action & EMIT and n_pairs + n_nodes > pairs.shape[0]:
            return
        if action & LOOK:
            mask = np.int64(-1)
            for k in range(first, end):
                value = prefixes[k]
                if cells[value >> shift] < 2:
                    continue
                slot = np.int64(value >> _U(20)) & slot_mask
                while slot_node[slot] != -1 and slot_key[slot] != value:
                    slot = (slot + 1) & slot_mask
                node = slot_node[slot]
                while node != -1:
                    other = np.int64(node_text[node])
                    node = next_node[node]
                    n_other = np.int64(sizes[other])
                    if compared[other] == d or n_other < threshold * size - _SLACK:
                        continue
                    compared[other] = d
                    if size < threshold * n_other - _SLACK:
                        continue
                    if n_compared >= max_comparisons:
                        state[4] = 1
                        return
                    n_compared += 1
                    tried[d] += 1
                    if mask == -1:
                        mask = _remember(hashes, start, size, table)
                    least = threshold if action & EMIT else max(threshold, best_score[d])
                    score = _jaccard(hashes, start, size, table, mask, starts[other], n_other, least)
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
                slot = np.int64(value >> _U(20)) & slot_mask
                while slot_node[slot] != -1 and slot_key[slot] != value:
                    slot = (slot + 1) & slot_mask
                node_text[n_nodes], next_node[n_nodes] = d, slot_node[slot]
                slot_node[slot], slot_key[slot] = n_nodes, value
                n_nodes += 1
    state[0], state[1], state[2], state[3] = order.shape[0], n_nodes, n_compared, n_pairs
