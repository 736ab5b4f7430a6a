"""Part of kernels: the exact Jaccard similarity of two sets of hashes, given up as soon as it must be too low.

Compiled into `tasks/curate/similarity/kernels/components.py` and `tasks/curate/similarity/kernels/walk.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.kernels.kernel import Part

SLACK = 1e-9  # products such as 0.7 * 10 may exceed the integer they stand for by a rounding error


@Part
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


@Part
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
