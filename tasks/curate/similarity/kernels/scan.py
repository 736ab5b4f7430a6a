"""Kernel: words, repeated runs, capitals, URLs, symbols and leftovers of texts, in one pass over their bytes.

It works on Arrow's buffers (UTF-8 bytes and offsets). `tasks/curate/quality.py` defines the counts, and
`tests/tasks/curate/test_quality.py` the same in plain Python.
"""

from typing import Any

import numpy as np

from tasks.compute.kernels import kernel, part

N_LISTED = 0x20000
"""Code points with an entry in the tables of `tasks/curate/quality_characters.py`."""
HAN_END = 0x40000
"""From `N_LISTED` up to here are Han ideographs alone."""
TAGS, TAGS_END = 0xE0000, 0xE1000
"""Tags and variation selectors, which are invisible; all others above are for private use: symbols."""
SYMBOL, SPACE, LETTER, UPPER, LOWER, UNSPACED, INVISIBLE = range(7)
"""Class of a character. UNSPACED: of a script without spaces, a word of its own. INVISIBLE: ignored."""

COUNTS = (
    "body_words", "body_repeated", "body_upper", "body_cased", "body_url", "body_symbols", "body_characters",
    "leftovers", "reply_words", "reply_repeated",
)  # fmt: skip
"""Columns of the counts, in order."""
MAX_LEFTOVER = 60
"""Characters after the first in an unfilled placeholder."""
_MAX_BLANKS = 8
_U = np.uint64
_ODD = _U(0x9E3779B97F4A7C15)
_NONE, _29, _32 = _U(0), _U(29), _U(32)


@part()
def _may_stand(byte: Any, opener: Any) -> Any:
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


@part()
def _placeholder_end(data: Any, at: Any, end: Any) -> Any:
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


@part()
def _leftover_end(data: Any, at: Any, end: Any) -> Any:
    """Where `{{name}}`, `{name}`, `%NAME%`, `<<name>>` or `[NAME]` at `at` ends, or 0."""
    opener: Any = np.int64(data[at])
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


@part()
def _url_end(data: Any, at: Any, end: Any) -> Any:
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


@part()
def _scan(data: Any, start: Any, end: Any, classes: Any, lowered: Any, words: Any, found: Any) -> Any:
    """Write a hash per word into `words`; return their number.

    found: upper, cased, characters in URLs, symbols, characters, leftovers.
    """
    for place in range(6):
        found[place] = 0
    n_words = 0
    open_word = False
    word = _NONE
    at = start
    while at < end:
        byte: Any = np.int64(data[at])
        if 97 <= byte <= 122 and (open_word or (byte != 104 and byte != 119)):
            # Most of a text: small letters, the first of which begins no URL. The long way below does the same.
            if not open_word:
                word, open_word = _NONE, True
            first = at
            while at < end and 97 <= data[at] <= 122:
                word = (word ^ _U(data[at])) * _ODD
                word ^= word >> _32
                at += 1
            found[1], found[4] = found[1] + at - first, found[4] + at - first
            continue
        stop, leftover, is_url = 0, False, False
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
            word = _NONE
            n_characters = 0
            for place in range(at, stop):
                word = (word ^ _U(data[place])) * _ODD
                word ^= word >> _32
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
            code, at = (byte & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, at + 2
        elif byte < 0xF0:
            code = (byte & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F
            at += 3
        else:
            code = (byte & 0x07) << 18 | (np.int64(data[at + 1]) & 0x3F) << 12
            code |= (np.int64(data[at + 2]) & 0x3F) << 6 | np.int64(data[at + 3]) & 0x3F
            at += 4
        if code < N_LISTED:
            kind: Any = np.int64(classes[code])
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
                word = _NONE
            form = _U(lowered[code]) if code < N_LISTED else _U(code)
            word = (word ^ form) * _ODD
            word ^= word >> _32
            open_word = kind != UNSPACED
            if kind == UNSPACED:
                words[n_words] = word
                n_words += 1
    if open_word:
        words[n_words] = word
        n_words += 1
    return n_words


@part()
def _run(words: Any, at: Any) -> Any:
    """Hash of the three words from `at`; never 0, which marks a free place."""
    run = _U(1)
    for place in range(at, at + 3):
        run = (run ^ words[place]) * _ODD
        run ^= run >> _29
    return run if run != _NONE else _U(1)


@part()
def _repeated(words: Any, n_words: Any, table: Any, mask: Any, add: Any) -> Any:
    """Count words in three-word runs that are in the table; with `add`, each run is added after it was looked up."""
    n_repeated = 0
    covered = 0
    for at in range(n_words - 2):
        run = _run(words, at)
        place = run & mask
        while table[place] != _NONE and table[place] != run:
            place = (place + _U(1)) & mask
        if table[place] == run:
            n_repeated += at + 3 - max(at, covered)
            covered = at + 3
        elif add:
            table[place] = run
    return n_repeated


@kernel()
def scan_tickets(
    bodies: Any,
    body_offsets: Any,
    replies: Any,
    reply_offsets: Any,
    classes: Any,
    lowered: Any,
    words: Any,
    table: Any,
    found: Any,
    counts: Any,
) -> int:
    """Fill `counts` (rows, len(COUNTS)) from UTF-8 bytes and offsets of the rows' bodies and replies.

    Args:
        classes: Class of each code point under `N_LISTED`.
        lowered: Its lower-case form.
        words: Work array, as long as the longest text has bytes.
        table: Work array of `table_size(longest text)`.
        found: Work array of 6.
    """
    for row in range(len(counts)):
        start, end = np.int64(body_offsets[row]), np.int64(body_offsets[row + 1])
        n_words = _scan(bodies, start, end, classes, lowered, words, found)
        # As large as this body needs: clearing the whole table for each row would take longer than the rest.
        n_places = 8
        while n_places < 2 * n_words:
            n_places *= 2
        for place in range(n_places):
            table[place] = _NONE
        mask = _U(n_places - 1)
        counts[row, 0] = n_words
        counts[row, 1] = _repeated(words, n_words, table, mask, True)
        for place in range(5):
            counts[row, 2 + place] = found[place]
        n_leftovers = found[5]
        start, end = np.int64(reply_offsets[row]), np.int64(reply_offsets[row + 1])
        n_words = _scan(replies, start, end, classes, lowered, words, found)
        counts[row, 7] = n_leftovers + found[5]
        counts[row, 8] = n_words
        counts[row, 9] = _repeated(words, n_words, table, mask, False)
    return 0


def table_size(longest: int) -> int:
    """Places for the three-word runs of a text of so many bytes: a power of two, half of it free.

    >>> table_size(100)
    256
    """
    return int(max(8, 1 << (2 * max(longest, 1) - 1).bit_length()))
