"""Kernel: a 256-bit sketch of each set, and how far apart two sets must be at least, told by their sketches alone.

Each hash sets one bit. A bit that only one of two sketches has stands for a hash that only that set has, so the
symmetric difference is at least the number of differing bits: pairs over the limit need no exact comparison, and no
similar pair is ever lost.
Source: Sandes, Teodoro and Melo, Bitmap Filter (2018).

Called by `tasks/curate/similarity/join.py`; `is_apart` is compiled into the kernels that compare.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.kernels.kernel import Part, kernel

WORDS = 4
_U = np.uint64
_PAIRS, _FOURS, _BYTES, _ONES = (
    _U(0x5555555555555555),
    _U(0x3333333333333333),
    _U(0x0F0F0F0F0F0F0F0F),
    _U(0x0101010101010101),
)


@kernel("u64[] i64[] i32[] i64 i64 u64[,]")
def sketch_sets(hashes: Any, starts: Any, sizes: Any, low: Any, high: Any, sketches: Any) -> int:
    """Fill the sketches of the texts from `low` on, below `high`; returns the bits set, with repetitions.

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


@Part
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
