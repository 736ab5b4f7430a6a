"""Count words, repeated runs, capitals, URLs, symbols and leftovers of bodies and replies, in one pass over the bytes.

Compiled by numba and free of the interpreter's lock, so that row ranges run side by side. It works on Arrow's buffers
(UTF-8 bytes and offsets) and knows nothing of columns and thresholds. What is counted is said in
`tasks/curate/quality.py`, which calls it; `tests/tasks/curate/test_quality.py` says the same in plain Python.
"""

from __future__ import annotations

import numpy as np
from numba import int64, njit, types, uint64

from tasks.curate.characters import HAN_END, INVISIBLE, LOWER, N_LISTED, SPACE, SYMBOL, TAGS, TAGS_END, UNSPACED, UPPER

COUNTS = (
    "body_words", "body_repeated", "body_upper", "body_cased", "body_url", "body_symbols", "body_characters",
    "leftovers", "reply_words", "reply_repeated",
)  # fmt: skip
"""Columns of the counts, in order."""
MAX_LEFTOVER = 60
"""Characters after the first in an unfilled placeholder."""
_MAX_BLANKS = 8
_MIX = 0x9E3779B97F4A7C15
_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_OFFSETS = types.Array(types.int32, 1, "C", readonly=True)
_CODES = types.Array(types.uint32, 1, "C", readonly=True)


@njit
def _may_stand(byte, opener):  # type: ignore[no-untyped-def]
    """Whether an unfilled placeholder that begins with `opener` may hold the byte: `{a.b}`, `%A_B%`, `[A B]`."""
    if 65 <= byte <= 90 or 48 <= byte <= 57 or byte == 95:  # A-Z 0-9 _
        return True
    if opener == 37:  # %
        return False
    if opener == 91:  # [
        return byte == 32
    if 97 <= byte <= 122 or byte == 46:  # a-z .
        return True
    return opener == 0 and (byte == 32 or byte == 45)  # the double forms {{ }} and << >>: also blank and -


@njit
def _placeholder_end(data, at, end):  # type: ignore[no-untyped-def]
    """Where `[EMAIL_1]` at `at` ends, or 0."""
    place = at + 1
    while place < end and (65 <= data[place] <= 90 or (data[place] == 95 and place > at + 1)):
        place += 1
    if place < at + 3 or data[place - 1] != 95:
        return 0
    first_digit = place
    while place < end and 48 <= data[place] <= 57:
        place += 1
    return place + 1 if place > first_digit and place < end and data[place] == 93 else 0


@njit
def _leftover_end(data, at, end):  # type: ignore[no-untyped-def]
    """Where `{{name}}`, `{name}`, `%NAME%`, `<<name>>` or `[NAME]` at `at` ends, or 0."""
    opener = int64(data[at])
    double = at + 1 < end and data[at + 1] == opener and (opener == 123 or opener == 60)
    if opener == 60 and not double:
        return 0
    place = at + 1
    kind = opener
    if double:
        place, kind = at + 2, 0
        while place < end and data[place] == 32 and place < at + 2 + _MAX_BLANKS:
            place += 1
    first = place
    if (
        place >= end
        or not _may_stand(data[place], kind)
        or data[place] < 65
        or (data[place] == 95 and opener in (37, 91))
    ):
        return 0
    place += 1
    while place < end and place <= first + MAX_LEFTOVER and _may_stand(data[place], kind):
        place += 1
    if opener in (37, 91) and place == first + 1:
        return 0
    closer = 125 if opener == 123 else 62 if opener == 60 else 93 if opener == 91 else 37
    if place >= end or data[place] != closer or (double and (place + 1 >= end or data[place + 1] != closer)):
        return 0
    return place + (2 if double else 1)


@njit
def _url_end(data, at, end):  # type: ignore[no-untyped-def]
    """Where the URL at `at` ends, or 0: `http://`, `https://` or `www.` in any case, up to a space or a bracket."""
    place = at
    if end - at >= 7 and data[at] | 32 == 104 and data[at + 1] | 32 == 116:
        if data[at + 2] | 32 != 116 or data[at + 3] | 32 != 112:
            return 0
        place = at + 5 if data[at + 4] | 32 == 115 else at + 4
        if place + 3 > end or data[place] != 58 or data[place + 1] != 47 or data[place + 2] != 47:
            return 0
        place += 3
    elif end - at >= 4 and data[at] | 32 == 119 and data[at + 1] | 32 == 119 and data[at + 2] | 32 == 119:
        if data[at + 3] != 46:
            return 0
        place = at + 4
    else:
        return 0
    while place < end:
        byte = data[place]
        # Blanks and control characters, and " ( ) < > [ ] { }
        if byte <= 32 or byte in (34, 40, 41, 60, 62, 91, 93, 123, 125):
            break
        place += 1
    return place


@njit
def _scan(data, start, end, classes, lowered, words, found):  # type: ignore[no-untyped-def]
    """Write a hash per word into `words`; return their number.

    found: upper, cased, characters in URLs, symbols, characters, leftovers.
    """
    found[:] = 0
    n_words = 0
    open_word = False
    word = uint64(0)
    at = start
    while at < end:
        byte = int64(data[at])
        stop = 0
        leftover = False
        is_url = False
        if byte == 91:
            stop = _placeholder_end(data, at, end)
            is_url = stop > 0 and at + 5 < end and data[at + 1] == 85 and data[at + 2] == 82 and data[at + 3] == 76
            is_url = is_url and data[at + 4] == 95 and 48 <= data[at + 5] <= 57
        if stop == 0 and (byte == 91 or byte == 123 or byte == 37 or byte == 60):
            stop = _leftover_end(data, at, end)
            leftover = stop > 0
        if stop == 0 and not open_word and (byte | 32 == 104 or byte | 32 == 119):
            stop = _url_end(data, at, end)
            is_url = stop > 0
        if stop > 0:  # one word, neither capitals nor symbols
            if open_word:
                words[n_words] = word
                n_words += 1
                open_word = False
            word = uint64(0)
            n_characters = 0
            for place in range(at, stop):
                word = (word ^ uint64(data[place])) * uint64(_MIX)
                word ^= word >> uint64(32)
                n_characters += (data[place] & 0xC0) != 0x80
            words[n_words] = word
            n_words += 1
            found[2] += n_characters if is_url else 0
            found[4] += n_characters
            found[5] += leftover
            at = stop
            continue
        if byte < 0x80:
            code, at = byte, at + 1
        elif byte < 0xE0:
            code, at = (byte & 0x1F) << 6 | int64(data[at + 1]) & 0x3F, at + 2
        elif byte < 0xF0:
            code = (byte & 0x0F) << 12 | (int64(data[at + 1]) & 0x3F) << 6 | int64(data[at + 2]) & 0x3F
            at += 3
        else:
            code = (byte & 0x07) << 18 | (int64(data[at + 1]) & 0x3F) << 12
            code |= (int64(data[at + 2]) & 0x3F) << 6 | int64(data[at + 3]) & 0x3F
            at += 4
        if code < N_LISTED:
            kind = int64(classes[code])
        elif code < HAN_END:
            kind = UNSPACED
        else:
            kind = INVISIBLE if TAGS <= code < TAGS_END else SYMBOL
        found[4] += 1
        found[0] += kind == UPPER
        found[1] += kind in (UPPER, LOWER)
        found[3] += kind == SYMBOL
        if kind == INVISIBLE:
            continue
        is_part = kind != SYMBOL and kind != SPACE
        if open_word and (not is_part or kind == UNSPACED):
            words[n_words] = word
            n_words += 1
            open_word = False
        if is_part:
            if not open_word:
                word = uint64(0)
            form = uint64(lowered[code]) if code < N_LISTED else uint64(code)
            word = (word ^ form) * uint64(_MIX)
            word ^= word >> uint64(32)
            open_word = kind != UNSPACED
            if kind == UNSPACED:
                words[n_words] = word
                n_words += 1
    if open_word:
        words[n_words] = word
        n_words += 1
    return n_words


@njit
def _run(words, at):  # type: ignore[no-untyped-def]
    """Hash of the three words from `at`; never 0, which marks a free place."""
    run = uint64(1)
    for place in range(at, at + 3):
        run = (run ^ words[place]) * uint64(_MIX)
        run ^= run >> uint64(29)
    return run if run != uint64(0) else uint64(1)


@njit
def _repeated(words, n_words, table, mask, add):  # type: ignore[no-untyped-def]
    """Words that lie in a three-word run which the table holds; with `add`, each run goes in after it was looked up."""
    n_repeated = 0
    covered = 0
    for at in range(n_words - 2):
        run = _run(words, at)
        place = run & mask
        while table[place] != uint64(0) and table[place] != run:
            place = (place + uint64(1)) & mask
        if table[place] == run:
            n_repeated += at + 3 - max(at, covered)
            covered = at + 3
        elif add:
            table[place] = run
    return n_repeated


@njit(
    types.void(_BYTES, _OFFSETS, _BYTES, _OFFSETS, _BYTES, _CODES, types.Array(types.int64, 2, "C")),
    nogil=True,
    cache=True,
)
def scan_tickets(bodies, body_offsets, replies, reply_offsets, classes, lowered, counts):  # type: ignore[no-untyped-def]
    """Fill `counts` (rows, len(COUNTS)) from UTF-8 bytes and offsets of the rows' bodies and replies."""
    longest = 4
    for row in range(len(counts)):
        longest = max(longest, body_offsets[row + 1] - body_offsets[row], reply_offsets[row + 1] - reply_offsets[row])
    words = np.empty(longest, np.uint64)
    n_places = 8
    while n_places < 2 * longest:
        n_places *= 2
    table = np.zeros(n_places, np.uint64)
    found = np.zeros(6, np.int64)
    for row in range(len(counts)):
        start, end = int64(body_offsets[row]), int64(body_offsets[row + 1])
        n_words = _scan(bodies, start, end, classes, lowered, words, found)
        # As large as this body needs: clearing the whole table for each row would take longer than the rest.
        n_places = 8
        while n_places < 2 * n_words:
            n_places *= 2
        table[:n_places] = uint64(0)
        mask = uint64(n_places - 1)
        counts[row, 0] = n_words
        counts[row, 1] = _repeated(words, n_words, table, mask, True)
        counts[row, 2:7] = found[:5]
        counts[row, 7] = found[5]
        start, end = int64(reply_offsets[row]), int64(reply_offsets[row + 1])
        n_words = _scan(replies, start, end, classes, lowered, words, found)
        counts[row, 7] += found[5]
        counts[row, 8] = n_words
        counts[row, 9] = _repeated(words, n_words, table, mask, False)
