"""Kernels that compare sets of hashes: sketches, exact Jaccard similarity, components and walks.

A text d is a set of 64-bit hashes, `hashes[starts[d]:starts[d] + sizes[d]]`, distinct and in any order.
"""

from typing import Any

import numpy as np

from tasks.compute.kernels import kernel, part

_U = np.uint64
WORDS = 4
"""64-bit words of a sketch."""
_PAIRS, _FOURS, _BYTES, _ONES = (
    _U(0x5555555555555555),
    _U(0x3333333333333333),
    _U(0x0F0F0F0F0F0F0F0F),
    _U(0x0101010101010101),
)
SLACK = 1e-9  # products such as 0.7 * 10 may exceed the integer they stand for by a rounding error
TEXT, NEXT, LEFT, BELOW = 0, 1, 2, 3
"""Columns of `nodes`: a text, the next node of the list, how many of the text's hashes are not rarer, the next of the
chain."""
LOOK, ADD_IF_ALONE, ADD, EMIT = 1, 2, 4, 8
"""What a text does: look for partners, be found later unless it has one, be found later, list all its partners."""


@kernel()
def sketch_sets(hashes: Any, starts: Any, sizes: Any, low: Any, high: Any, sketches: Any) -> int:
    """Fill the sketches of the texts from `low` on, below `high`; returns the bits set, with repetitions.

    Each hash sets one of 256 bits. A bit that only one of two sketches has stands for a hash that only that set has, so
    the symmetric difference is at least the number of differing bits: pairs over the limit need no exact comparison,
    and no similar pair is ever lost.
    Source: Sandes, Teodoro and Melo, Bitmap Filter (2018).

    Args:
        sketches: (n, 4), 0 at first.
    """
    n_bits = 0
    for d in range(low, high):
        for place in range(starts[d], starts[d] + sizes[d]):
            bit = hashes[place] & _U(255)
            sketches[d, bit >> _U(6)] |= _U(1) << (bit & _U(63))
            n_bits += 1
    return n_bits


@part()
def is_apart(sketches: Any, one: Any, two: Any, limit: Any) -> Any:
    """True when the sets of two texts surely differ in more than `limit` hashes."""
    n_bits = _U(0)
    for word in range(WORDS):
        # Bits of the word, counted in parallel; compilers know the idiom.
        bits = sketches[one, word] ^ sketches[two, word]
        bits = bits - ((bits >> _U(1)) & _PAIRS)
        bits = (bits & _FOURS) + ((bits >> _U(2)) & _FOURS)
        n_bits += (((bits + (bits >> _U(4))) & _BYTES) * _ONES) >> _U(56)
    return np.float64(np.int64(n_bits)) > limit


@part()
def remember(hashes: Any, start: Any, size: Any, table: Any) -> Any:
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


@part()
def jaccard(hashes: Any, start: Any, size: Any, table: Any, mask: Any, other: Any, n_other: Any, least: Any) -> Any:
    """J of the remembered text and another, or -1.0 as soon as it must be below `least`."""
    need = least / (1.0 + least) * (size + n_other) - SLACK
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


@part()
def _find(parents: Any, d: Any) -> Any:
    while parents[d] != d:
        parents[d] = parents[parents[d]]
        d = parents[d]
    return d


@kernel()
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
        cells: How many prefixes hold a hash of a cell (`hash >> shift`); a hash alone in its cell has no partner.
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
    common = threshold / (1.0 + threshold)  # and needs this share as common hashes
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


@kernel()
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
    """Visit the texts in `order`; returns 0 at the end, 1 if `pairs` may be too short for the next text, 2 if more
    comparisons than allowed are needed.

    Arguments not named here are those of `connect_components`.

    Args:
        order: Texts to visit; the walk continues at `state[0]`.
        actions: Per text, what it does.
        compared: -1 per text; like all work arrays it is kept when the walk continues.
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
