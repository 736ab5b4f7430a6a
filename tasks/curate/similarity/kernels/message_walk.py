"""Kernels: the walk over the lines of many messages at once, from the end up, as `find_signature` goes over one.

What a line is, Python says (`tasks/curate/mail/mail_signature.py`): once for each different line, not for each message.
Here the next line of every message is handed out and its verdict taken. Called by `tasks/curate/mail/mail_column.py`
alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.curate.similarity.kernels.message_bytes import (
    CONTACT,
    CURSOR,
    END,
    FIRST,
    FIRST_END,
    FITS,
    LINE,
    LIVE,
    LOW,
    N_BELOW,
    START,
    is_blank,
    is_space,
    lower,
    may_begin,
)
from tasks.kernels.kernel import Part, kernel

_THIS, _THE_I, _CONFI, _DIESE, _ESTE = (
    int.from_bytes(word) for word in (b"this ", b"the i", b"confi", b"diese", b"este ")
)
_CE_M, _CE_C = int.from_bytes(b"ce m"), int.from_bytes(b"ce c")
# Bits of a verdict.
(OPENS_ALWAYS, OPENS_IF_FITS, OPENS_IF_CONTACT, IS_TEXT, ENDS_FIT, IS_CONTACT, DASH_NAME, NAME, LONG_NAME) = (
    1 << place for place in range(9)
)


@kernel("i64[] i64[] i64 i64[,]")
def begin_walk(greeting: Any, rows: Any, n_lines: Any, state: Any) -> int:
    """Set out at the last line of each message.

    Args:
        greeting: (n_lines): bytes of the greeting at the beginning of a first line.
        rows: (n_lines): its message.
    """
    for number in range(n_lines):
        row = rows[number]
        is_whole = greeting[number] == state[row, FIRST_END] - state[row, FIRST]
        # Behind a first line that is all greeting; that line is never empty.
        state[row, LOW] = state[row, FIRST_END] + 1 if is_whole else state[row, FIRST]
        state[row, CURSOR] = state[row, END]
        state[row, START] = -1
        state[row, N_BELOW] = state[row, CONTACT] = 0
        state[row, FITS] = 1
        state[row, LIVE] = 1
    return 0


@Part
def _cut_line(data: Any, start: Any, end: Any, max_characters: Any) -> Any:
    """Where so many characters of the line end."""
    if end - start <= max_characters:
        return end
    n_characters = 0
    for place in range(start, end):
        if data[place] & 0xC0 != 0x80:
            if n_characters == max_characters:
                return place
            n_characters += 1
    return end


@Part
def _may_disclaim(data: Any, begin: Any, end: Any) -> Any:
    """Whether a disclaimer may begin here: `this `, `the i`, `confi`, `diese`, `ce m`, `ce c`, `este `, any case."""
    while begin < end and (data[begin] == 42 or data[begin] == 95 or is_space(data[begin])):
        begin += 1
    if end - begin < 5:
        return False
    code = np.int64(0)
    for at in range(begin, begin + 5):
        if data[at] >= 128:
            return True
        code = code * 256 + lower(data[at])
    for opening in (_THIS, _THE_I, _CONFI, _DIESE, _ESTE):
        if code == opening:
            return True
    return code >> 8 == _CE_M or code >> 8 == _CE_C


@Part
def _is_plainly_text(data: Any, begin: Any, end: Any, leads: Any, max_line: Any) -> Any:
    """Whether a line is text, told without the words that Python knows: a sentence, and one of no use to a signature.

    True only where `kind_of` says `text` and no `is_name` says yes: a word begins with a small letter, no word of
    `leads` and no disclaimer begins the line, and it is long, of many words, or ends as a sentence does.
    """
    if _may_disclaim(data, begin, end):
        return False
    is_lead = may_begin(data, begin, end, leads)
    n_words = n_characters = 0
    has_small = False
    after_space = True
    for at in range(begin, end):
        byte = data[at]
        if byte & 0xC0 != 0x80:
            n_characters += 1
        space = is_space(byte)
        if after_space and not space:
            n_words += 1
            has_small = has_small or (n_words > 1 and 97 <= byte <= 122)
            if has_small and n_words > 10 and not is_lead:
                return True
        after_space = space
    if not has_small or n_characters > max_line:
        return has_small
    last = data[end - 1]
    return (last == 63 or last == 33 or (last == 46 and n_words > 3)) and not is_lead


@kernel("u8[] u8[] i64 i64 i64 i64[,] i64 u8[] i64[] i64[]")
def take_next_lines(
    data: Any, leads: Any, max_lines: Any, max_line: Any, max_characters: Any, state: Any, n_rows: Any, lines: Any,
    ends: Any, rows: Any,
) -> int:  # fmt: skip
    """Copy of each message still walked over the next line up that is not blank; messages without one end here.

    Args:
        leads: (128 * 128): 1 for the first two letters of words that open a sign-off or name a device.
        max_lines: Lines of a signature.
        max_line: Characters of a line that is a name or a sign-off.
        max_characters: Of a line that are looked at.
        n_rows: Messages in `rows` on the way in.
        lines: Room for 4 * max_characters bytes for each of them.
    """
    n_lines = place = 0
    for number in range(n_rows):
        row = rows[number]
        if not state[row, LIVE]:
            continue
        state[row, LIVE] = 0
        end, low = state[row, CURSOR], state[row, LOW]
        while end >= low and state[row, N_BELOW] < max_lines:
            start = end
            while start > low and data[start - 1] != 10:
                start -= 1
            high = _cut_line(data, start, end, max_characters)
            begin = start
            while begin < high and is_blank(data[begin]):
                begin += 1
            while high > begin and is_blank(data[high - 1]):
                high -= 1
            if begin < high:
                if _is_plainly_text(data, begin, high, leads, max_line):
                    break
                for at in range(begin, high):
                    lines[place] = data[at]
                    place += 1
                ends[n_lines], rows[n_lines] = place, row
                n_lines += 1
                state[row, LINE], state[row, LIVE] = start, 1
                break
            end = start - 1
    return n_lines


@Part
def _above(data: Any, start: Any, low: Any) -> Any:
    """What the line above ends with: -1 there is none, 0 it is blank, 1 the end of a sentence, 2 anything else."""
    if start <= low:
        return -1
    place = start - 1
    begin = low
    while place > begin and data[place - 1] != 10 and is_blank(data[place - 1]):
        place -= 1
    if place == begin or data[place - 1] == 10:
        return 0
    byte = data[place - 1]
    # . ! ? ) " of ASCII; the ellipsis is left to Python.
    return 1 if byte == 46 or byte == 33 or byte == 63 or byte == 41 or byte == 34 else 2


@Part
def _names_sender(verdict: Any, above: Any, n_below: Any, has_contact: Any) -> Any:
    if above == 0 and verdict & DASH_NAME:
        return 1
    if has_contact and n_below and above == 0:
        return 1 if verdict & LONG_NAME else 0
    return 1 if n_below == 0 and (above == 0 or above == 1) and verdict & NAME else 0


@kernel("u8[] i64[] i64[] i64 i64[,]")
def judge_lines(data: Any, verdicts: Any, rows: Any, n_lines: Any, state: Any) -> int:
    """Take the verdict on each line that was handed out: does the signature begin here, or end the walk?

    Args:
        verdicts: (n_lines): bits.
    """
    for number in range(n_lines):
        row, verdict = rows[number], verdicts[number]
        start, fits = state[row, LINE], state[row, FITS]
        has_contact = state[row, CONTACT]
        if verdict & OPENS_ALWAYS:
            opens = np.int64(1)
        elif verdict & OPENS_IF_CONTACT:
            opens = has_contact
        elif not fits or verdict & OPENS_IF_FITS:
            opens = fits
        else:
            above = _above(data, start, state[row, LOW])
            opens = np.int64(_names_sender(verdict, above, state[row, N_BELOW], has_contact))
        if opens:
            state[row, START] = start
        elif verdict & IS_TEXT:
            state[row, LIVE] = 0
            continue
        state[row, FITS] = 1 if opens or (fits and not verdict & ENDS_FIT) else 0
        if verdict & IS_CONTACT:
            state[row, CONTACT] = 1
        state[row, N_BELOW] += 1
        state[row, CURSOR] = start - 1
    return 0
