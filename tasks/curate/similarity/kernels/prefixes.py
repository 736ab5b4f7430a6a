"""Kernels before the join: equal texts, how common each shingle is, and each text's rarest shingles.

A text d is a set of 64-bit hashes, `hashes[starts[d]:starts[d] + sizes[d]]`, distinct and in any order.
"""

from typing import Any

import numpy as np

from tasks.compute.kernels import kernel, part, prefetch

_U = np.uint64
_AHEAD = 32
"""How many hashes before its use a cell is loaded: the cells of many texts do not fit into the processor's cache."""
_SLACK = 1e-9  # products such as 0.7 * 10 may exceed the integer they stand for by a rounding error


@part()
def _sort(values: Any, n: Any) -> None:
    """Sort the first n in place. Source: Shell, CACM 1959; gaps 3 k + 1."""
    gap = 1
    while gap < n // 3:
        gap = 3 * gap + 1
    while gap >= 1:
        for i in range(gap, n):
            value, j = values[i], i
            while j >= gap and values[j - gap] > value:
                values[j] = values[j - gap]
                j -= gap
            values[j] = value
        gap //= 3


@kernel()
def group_equal(keys: Any, order: Any, firsts: Any, table: Any) -> int:
    """Give each text the first text in `order` with the same key; a text with key 0, 0 equals no other.

    Args:
        table: -1, a power of two of them, at least twice the number of texts.
    """
    last = table.shape[0] - 1
    for q in range(order.shape[0]):
        d = order[q]
        firsts[d] = d
        if keys[d, 0] == _U(0) and keys[d, 1] == _U(0):
            continue
        slot = np.int64(keys[d, 0] >> _U(20)) & last
        while table[slot] != -1:
            met = table[slot]
            if keys[met, 0] == keys[d, 0] and keys[met, 1] == keys[d, 1]:
                firsts[d] = met
                break
            slot = (slot + 1) & last
        if table[slot] == -1:
            table[slot] = d
    return 0


@kernel()
def count_cells(hashes: Any, starts: Any, sizes: Any, shift: Any, cells: Any) -> int:
    """Add up how many hashes fall into each cell (`hash >> shift`), up to 255."""
    last = hashes.shape[0] - 1
    for d in range(starts.shape[0]):
        for place in range(starts[d], starts[d] + sizes[d]):
            prefetch(cells, hashes[min(place + _AHEAD, last)] >> shift)
            cell = hashes[place] >> shift
            if cells[cell] < np.uint8(255):
                cells[cell] += np.uint8(1)
    return 0


@part()
def _sort_by_rarity(values: Any, low: Any, high: Any, cells: Any, shift: Any) -> None:
    """Sort a few hashes in place by the count of their cell, then by value."""
    for i in range(low + 1, high):
        value, j = values[i], i
        count = cells[value >> shift]
        while j > low:
            before = values[j - 1]
            count_before = cells[before >> shift]
            if count_before < count or (count_before == count and before < value):
                break
            values[j] = before
            j -= 1
        values[j] = value


@kernel()
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
    n_index: Any,
    n_alone: Any,
    counts: Any,
    ties: Any,
) -> int:
    """Write the rare prefix of the texts low to high one after the other; return how many hashes were written.

    Rarest first, and of equally rare hashes the smallest: one order for all texts. Hashes alone in their cell are
    left out: no other text has them. A text with none left has no partner.

    Args:
        n_prefix: Filled with the length of each text's prefix: by it the text is found when it looks up others.
        n_index: Filled with how many of these are needed for others that are not smaller to find it.
        n_alone: Filled with how many of each text's hashes are alone.
        counts: 256 numbers for the kernel's use.
        ties: As many hashes as the largest text has, for the kernel's use.
    """
    w = 0
    last = hashes.shape[0] - 1
    for d in range(low, high):
        size, start = np.int64(sizes[d]), starts[d]
        n_prefix[d], n_index[d], n_alone[d] = 0, 0, 0
        if size == 0:
            continue
        alone = np.int64(0)
        for place in range(start, start + size):
            prefetch(cells, hashes[min(place + _AHEAD, last)] >> shift)
            alone += np.int64(cells[hashes[place] >> shift] == 1)
        need = size - np.int64(np.ceil(threshold * size - _SLACK)) + 1 - alone
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
        k = 0
        for place in range(start, start + size):
            if cells[hashes[place] >> shift] == cut:
                ties[k] = hashes[place]
                k += 1
        if n_left < k:
            _sort(ties, k)
        for k in range(n_left):
            prefixes[w] = ties[k]
            w += 1
        _sort_by_rarity(prefixes, first, w, cells, shift)
        n_prefix[d], n_alone[d] = w - first, alone
        # Of two texts of at least `size` hashes, 2 t / (1 + t) of it are common.
        least = np.int64(np.ceil(2.0 * threshold / (1.0 + threshold) * size - _SLACK))
        n_index[d] = max(0, size - least + 1 - alone)
    return w
