"""Parts of kernels: what a byte of a message is, and the columns in which kernels keep where they are in each message.

Called by `message_lines.py` and `message_walk.py`; compiled into their kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.kernels.kernel import Part

# Columns of `state`, all of them places in `data` but for the flags.
FIRST, FIRST_END, ALONE, END, LOW, CURSOR, LINE, START, N_BELOW, FITS, CONTACT, LIVE = range(12)
N_STATE = 12


@Part
def is_blank(byte: Any) -> Any:
    """What stands around a line: space, tab, carriage return, form feed, vertical tab."""
    return byte == 32 or byte == 9 or 11 <= byte <= 13


@Part
def is_space(byte: Any) -> Any:
    """What `str.strip` takes away, of ASCII."""
    return byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31


@Part
def line_end(data: Any, place: Any, end: Any) -> Any:
    while place < end and data[place] != 10:
        place += 1
    return place


@Part
def may_begin(data: Any, begin: Any, end: Any, pairs: Any) -> Any:
    """Whether a word of the list may begin here: by its first two letters, or by one beyond ASCII."""
    if end - begin < 2 or data[begin] >= 128 or data[begin + 1] >= 128:
        return True
    return pairs[np.int64(lower(data[begin])) * 128 + np.int64(lower(data[begin + 1]))] != 0


@Part
def lower(byte: Any) -> Any:
    return byte + 32 if 65 <= byte <= 90 else byte
