"""Kernel: lower case, code point by code point, of texts in which no character can change beside another.

Called by `tasks/curate/similarity/letters.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.curate.similarity.kernels.tokenise import character
from tasks.kernels.kernel import kernel

HARD = 0
"""In the table: the character's composed lower case depends on its neighbours, or is not one character."""


@kernel("u8[] i64[] i32[] u8[] i64[] u8[]")
def fold_texts(data: Any, offsets: Any, folds: Any, folded: Any, ends: Any, hard: Any) -> int:
    """Write each text in lower case to `folded`, and say which texts hold a hard character; those stay empty.

    Args:
        data: UTF-8 of all texts.
        offsets: `(n + 1)` places in `data`.
        folds: Code point of each code point's lower case; `HARD` for those that need more care.
        folded: Room for twice the bytes of `data`.
        ends: `(n,)`, filled with the end of each text in `folded`.
        hard: `(n,)`, filled with 1 for texts with a hard character, else 0.
    """
    w = 0
    for i in range(offsets.shape[0] - 1):
        place, start = offsets[i], w
        hard[i] = 0
        while place < offsets[i + 1]:
            byte = data[place]
            if byte < 0x80:
                if byte == 0:
                    byte = np.uint8(0x20)  # as the SQL does
                folded[w] = byte | 0x20 if byte >= 0x41 and byte <= 0x5A else byte
                w += 1
                place += 1
                continue
            code, width = character(data, place)
            code = folds[code]
            place += width
            if code == HARD:
                hard[i] = 1
                w = start
                break
            if code < 0x80:
                folded[w] = code
                w += 1
            elif code < 0x800:
                folded[w] = 0xC0 | (code >> 6)
                folded[w + 1] = 0x80 | (code & 0x3F)
                w += 2
            elif code < 0x10000:
                folded[w] = 0xE0 | (code >> 12)
                folded[w + 1] = 0x80 | ((code >> 6) & 0x3F)
                folded[w + 2] = 0x80 | (code & 0x3F)
                w += 3
            else:
                folded[w] = 0xF0 | (code >> 18)
                folded[w + 1] = 0x80 | ((code >> 12) & 0x3F)
                folded[w + 2] = 0x80 | ((code >> 6) & 0x3F)
                folded[w + 3] = 0x80 | (code & 0x3F)
                w += 4
        ends[i] = w
    return w
