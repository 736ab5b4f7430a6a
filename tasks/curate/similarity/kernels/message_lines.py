"""Kernels: first and last line of many messages at once, and in the end the text without greeting and signature.

Texts are UTF-8; a message is left to Python (`status` 1) where a byte may belong to a blank beyond ASCII. Called by
`tasks/curate/mail/mail_column.py` alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.curate.similarity.kernels.message_bytes import (
    ALONE,
    END,
    FIRST,
    FIRST_END,
    LIVE,
    START,
    is_blank,
    is_space,
    line_end,
    may_begin,
)
from tasks.kernels.kernel import Part, kernel

LEFT_TO_PYTHON = 1


@Part
def _next_text(data: Any, begin: Any, end: Any) -> Any:
    """Begin of the first line that is not blank; -1 when there is none."""
    line = begin
    for place in range(begin, end):
        if data[place] == 10:
            line = place + 1
        elif not is_blank(data[place]):
            return line
    return -1


@Part
def _holds_blank_beyond(data: Any, begin: Any, end: Any) -> Any:
    """Whether a blank beyond ASCII may be in the text: next line and no-break space are C2 85 and C2 A0, all others
    begin with E1, E2 or E3."""
    beyond = np.uint8(0)
    for place in range(begin, end):
        beyond |= data[place]
    if beyond < 128:
        return False
    for place in range(begin, end):
        byte = data[place]
        if 0xE1 <= byte <= 0xE3 or (byte == 0xC2 and (data[place + 1] == 0xA0 or data[place + 1] == 0x85)):
            return True
    return False


@kernel("u8[] i64[] u8[] i64[,]")
def begin_messages(data: Any, offsets: Any, status: Any, state: Any) -> int:
    """Find first and last line with text of each message that Python is not to do; returns the bytes of first lines.

    Args:
        data: The texts.
        offsets: (n + 1).
        status: (n): 1 where Python is to do it; set so where a blank beyond ASCII may be in it.
        state: (n, N_STATE).
    """
    n_bytes = 0
    for row in range(status.shape[0]):
        begin, end = offsets[row], offsets[row + 1]
        if _holds_blank_beyond(data, begin, end):
            status[row] = LEFT_TO_PYTHON
        first, last = _next_text(data, begin, end), end
        while last > first >= 0 and (is_blank(data[last - 1]) or data[last - 1] == 10):
            last -= 1
        if status[row] == LEFT_TO_PYTHON or first < 0:
            state[row, FIRST] = state[row, FIRST_END] = state[row, END] = state[row, START] = -1
            state[row, LIVE] = 0
            continue
        state[row, FIRST] = first
        state[row, FIRST_END] = line_end(data, first, end)
        state[row, ALONE] = 1 if last <= state[row, FIRST_END] else 0
        state[row, END] = line_end(data, last, end)
        n_bytes += state[row, FIRST_END] - first
    return n_bytes


@kernel("u8[] i64[,] u8[] u8[] i64[] i64[]")
def take_first_lines(data: Any, state: Any, openers: Any, lines: Any, ends: Any, rows: Any) -> int:
    """Copy the first line of every message that has one, or nothing of a line that cannot greet; returns how many.

    Args:
        openers: (128 * 128): 1 for the first two letters of words that open a greeting.
        lines: Room for their bytes.
        ends: (n): where each ends in `lines`.
        rows: (n): whose it is.
    """
    n_lines = place = 0
    for row in range(state.shape[0]):
        if state[row, FIRST] < 0:
            continue
        begin, end = state[row, FIRST], state[row, FIRST_END]
        word, last = begin, end
        while is_blank(data[word]):
            word += 1
        while is_blank(data[last - 1]):
            last -= 1
        # Without such a word only a name before a comma greets.
        if data[last - 1] == 44 or may_begin(data, word, end, openers):
            for at in range(begin, end):
                lines[place] = data[at]
                place += 1
        ends[n_lines], rows[n_lines] = place, row
        n_lines += 1
    return n_lines


@Part
def _is_alnum(byte: Any) -> Any:
    return 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122


@kernel("u8[] i64[] i64[] i64 i64 i64[,] u8[] u8[] i64[]")
def cut_texts(
    data: Any, offsets: Any, greeting: Any, cuts_greeting: Any, cuts_signature: Any, state: Any, status: Any, out: Any,
    out_offsets: Any,
) -> int:  # fmt: skip
    """Copy what is left of each message; a message of which nothing would be left, whole. Returns the bytes copied.

    Args:
        greeting: (n): bytes of the greeting at the beginning of the first line.
        cuts_greeting: 1 where greetings go.
        cuts_signature: 1 where signatures go.
        status: Set to 1 where only Python can say whether something is left.
        out: Room for all texts.
        out_offsets: (n + 1).
    """
    place = 0
    for row in range(status.shape[0]):
        begin, end = offsets[row], offsets[row + 1]
        low, high = begin, end
        if state[row, FIRST] >= 0:
            first = state[row, FIRST]
            has_signature = cuts_signature and state[row, START] >= 0
            # A signature that begins with the first line leaves no greeting.
            has_greeting = cuts_greeting and greeting[row] > 0 and state[row, START] != first
            if has_greeting:
                low = min(first + greeting[row], end)
            if has_signature:
                high = max(state[row, START], low)
            if has_greeting or has_signature:
                while low < high and is_space(data[low]):
                    low += 1
                while high > low and is_space(data[high - 1]):
                    high -= 1
                is_left = is_beyond = False
                for at in range(low, high):
                    is_left = is_left or _is_alnum(data[at])
                    is_beyond = is_beyond or data[at] >= 128
                    if is_left:
                        break
                if not is_left:
                    low, high = begin, end
                    if is_beyond:
                        status[row] = LEFT_TO_PYTHON
        for at in range(low, high):
            out[place] = data[at]
            place += 1
        out_offsets[row + 1] = place
    return place
