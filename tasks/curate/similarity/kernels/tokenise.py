"""Kernels from the bytes of texts to hashes and numbers: lower case, words, shingles, keys, n-grams.

A text is UTF-8 with letters beyond ASCII already lower-cased and composed (`folded` in
`tasks/curate/similarity/words.py`); ASCII is lower-cased here. Words are runs of letters, digits and marks, as in
`normal_form`. Most words are ASCII and are hashed eight bytes at a time. The hash of a word does not depend on how its
bytes were met: `_add_block` takes its bytes in blocks of eight from its first byte, the last one filled with zeros.

Two words, runs of words or texts count as equal when their hashes are: 64 bits for words and shingles, 128 for texts.
Among a million tickets of a hundred words (1e8 shingles) one false shingle pair in some text is expected once in 3,700
such sets, and it would move one Jaccard value by one shingle; two different texts meet with probability 1e-27.
"""

from typing import Any

import numpy as np

from tasks.compute.kernels import kernel, part

SEPARATOR, LETTER, LONE, INVISIBLE = 0, 1, 2, 3
"""Classes of characters: between words, part of a word, a word of its own, not there at all."""

_U = np.uint64
_SEED = _U(0xCBF29CE484222325)
_ODD1, _ODD2, _ODD3 = _U(0x9E3779B97F4A7C15), _U(0xBF58476D1CE4E5B9), _U(0x94D049BB133111EB)
_27, _29, _30, _31, _32 = _U(27), _U(29), _U(30), _U(31), _U(32)
_HIGH, _LOW7 = _U(0x8080808080808080), _U(0x7F7F7F7F7F7F7F7F)
_PLACES = _U(0x0001020304050607)  # times 256 ** k it has k in its highest byte
_CASE = _U(0x2020202020202020)
# Added to a byte below 128, these set its high bit from 'a', after 'z', from '0' and after '9' on.
_FROM_A, _AFTER_Z = _U(0x1F1F1F1F1F1F1F1F), _U(0x0505050505050505)
_FROM_0, _AFTER_9 = _U(0x5050505050505050), _U(0x4646464646464646)


@part()
def _load8(words: Any, place: Any) -> Any:
    """The eight bytes from `place` on as one little-endian number, from the aligned ones that hold them."""
    n_bits = _U(8) * _U(place & 7)
    first = place >> 3
    return (words[first] >> n_bits) | ((words[first + 1] << _U(1)) << (_U(63) - n_bits))


@part()
def _mix(value: Any) -> Any:
    """Source: splitmix64's finaliser (Steele, Lea, Flood, OOPSLA 2014)."""
    value = (value ^ (value >> _30)) * _ODD2
    value = (value ^ (value >> _27)) * _ODD3
    return value ^ (value >> _31)


@part()
def _add_block(state: Any, block: Any) -> Any:
    state = (state ^ block) * _ODD1
    return state ^ (state >> _29)


@part()
def character(data: Any, place: Any) -> tuple[Any, Any]:
    """Code point and number of bytes of the character that starts at `place`; the text is valid UTF-8."""
    first = np.int64(data[place])
    if first < 0x80:
        return first, np.int64(1)
    if first < 0xE0:
        return ((first & 0x1F) << 6) | np.int64(data[place + 1] & 0x3F), np.int64(2)
    second = np.int64(data[place + 1] & 0x3F)
    third = np.int64(data[place + 2] & 0x3F)
    if first < 0xF0:
        return ((first & 0x0F) << 12) | (second << 6) | third, np.int64(3)
    return ((first & 0x07) << 18) | (second << 12) | (third << 6) | np.int64(data[place + 3] & 0x3F), np.int64(4)


@part()
def _ascii_word(data: Any, words: Any, place: Any, end: Any) -> tuple[Any, Any, Any]:
    """Hash of the word's ASCII part from `place` on, the place after it, and whether it is complete there."""
    state = _SEED
    last = 8 * words.shape[0] - 16
    while True:
        left = end - place
        if place <= last:
            eight = _load8(words, place)
        else:
            eight = _U(0)
            for k in range(min(left, 8)):
                eight |= _U(data[place + k]) << _U(8 * k)
        if left < 8:
            eight &= (_U(1) << _U(8 * left)) - _U(1)
        low = eight & _LOW7
        cased = low | _CASE
        letter = (cased + _FROM_A) & ~(cased + _AFTER_Z)
        digit = (low + _FROM_0) & ~(low + _AFTER_9)
        outside = ~((letter | digit) & ~eight) & _HIGH
        # 'A' to 'Z' become lower case: their letter bit, moved to the place of the case bit, is set.
        lower = eight | ((letter & _HIGH & ~eight) >> _U(2))
        if outside == _U(0):
            state = _add_block(state, lower)
            place += 8
            continue
        first = (outside & (~outside + _U(1))) >> _U(7)  # the lowest bit of the first byte outside
        if first != _U(1):
            state = _add_block(state, lower & (first - _U(1)))
            place += np.int64((first * _PLACES) >> _U(56))
        return _mix(state), place, place >= end or data[place] < 0x80


@part()
def _any_word(data: Any, place: Any, end: Any, classes: Any) -> tuple[Any, Any]:
    """Hash of the word at `place` and the place after it, character by character; 0 when nothing there is a word."""
    state, block, filled, n_bytes = _SEED, _U(0), 0, 0
    while place < end:
        code, width = character(data, place)
        kind = classes[code]
        if kind == SEPARATOR or (kind == LONE and n_bytes > 0):
            break
        if kind != INVISIBLE:
            for k in range(width):
                byte = data[place + k]
                if byte < 0x80 and byte >= 0x41 and byte <= 0x5A:
                    byte |= np.uint8(0x20)
                block |= _U(byte) << _U(8 * filled)
                filled += 1
                if filled == 8:
                    state = _add_block(state, block)
                    block, filled = _U(0), 0
            n_bytes += width
        place += width
        if kind == LONE:
            break
    if filled > 0:
        state = _add_block(state, block)
    return (_mix(state) if n_bytes > 0 else _U(0)), place


@kernel()
def shingle_texts(
    data: Any, words: Any, offsets: Any, classes: Any, ring: Any, met: Any, hashes: Any, sizes: Any, keys: Any
) -> int:
    """Write each text's distinct shingles one after the other into `hashes`, and return how many there are.

    Args:
        data: Bytes of all texts.
        words: The same bytes by eight, without the last that do not fill eight.
        offsets: `(n + 1)` places in `data`; text i is `data[offsets[i]:offsets[i + 1]]`.
        classes: Class of each code point; the first 128 are enough where all texts are ASCII.
        ring: Zeros, as many as a shingle has words.
        met: -1, a power of two of them, more than the longest text has bytes and at least 64.
        hashes: Room for one shingle per two bytes, and one more per text.
        sizes: `(n,)`, filled with the number of distinct shingles.
        keys: `(n, 2)`, filled with the text's key; 0, 0 for a text without a word.
    """
    n = offsets.shape[0] - 1
    n_words = ring.shape[0]
    oldest = _U(1)
    for _ in range(n_words):
        oldest *= _ODD1
    w = 0
    for i in range(n):
        place, end, start = offsets[i], offsets[i + 1], w
        mask = 63
        while mask < end - place:
            mask = 2 * mask + 1
        key1, key2, rolling = _ODD2, _ODD3, _U(0)
        n_met, slot_of_ring = 0, 0
        while place < end:
            byte = data[place]
            if byte < 0x80 and classes[byte] == SEPARATOR:
                place += 1
                continue
            word, after, complete = _ascii_word(data, words, place, end)
            if not complete:
                word, after = _any_word(data, place, end, classes)
                if word == _U(0):
                    # A separator beyond ASCII stands here, or nothing but invisible characters up to it.
                    if after < end:
                        after += character(data, after)[1]
                    place = after
                    continue
            place = after
            key1 = (key1 ^ word) * _ODD1
            key1 ^= key1 >> _31
            key2 = (key2 + word) * _ODD3
            key2 ^= key2 >> _29
            rolling = rolling * _ODD1 + word - ring[slot_of_ring] * oldest
            ring[slot_of_ring] = word
            slot_of_ring += 1
            if slot_of_ring == n_words:
                slot_of_ring = 0
            n_met += 1
            if n_met < n_words:
                continue
            shingle = _mix(rolling)
            # `met` holds places of this text's hashes; one before its first is an earlier text's and counts as empty.
            slot = np.int64(shingle) & mask
            while met[slot] >= start and hashes[met[slot]] != shingle:
                slot = (slot + 1) & mask
            if met[slot] < start:
                met[slot] = w
                hashes[w] = shingle
                w += 1
        sizes[i] = w - start
        if n_met > 0:
            keys[i, 0], keys[i, 1] = _mix(key1), _mix(key2)
        else:
            keys[i, 0], keys[i, 1] = _U(0), _U(0)
        ring[:] = _U(0)
    return w


HARD = 0
"""In the table: the character's composed lower case depends on its neighbours, or is not one character."""


@kernel()
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


_START = np.uint64(0xCBF29CE484222325)  # FNV-1a, 64 bits
_PRIME = np.uint64(0x100000001B3)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_NOTHING = np.uint64(0)
UNKNOWN = -1
"""Number of a word or n-gram that the held-out side does not have."""


@kernel()
def number_words(
    data: Any,
    offsets: Any,
    letters: Any,
    classes: Any,
    scratch: Any,
    slots: Any,
    word_bytes: Any,
    word_ends: Any,
    word_hashes: Any,
    sizes: Any,
    learn: Any,
    out: Any,
    out_ends: Any,
) -> Any:
    """Write the number of each word of each text to `out` (`out_ends`: its end per text); return how many there are.

    Words are numbered from 0 in the order they are first seen. With `learn` unknown words are added (the arrays must
    have room), without they are `UNKNOWN`.

    Args:
        data: UTF-8 in folded form (`tasks/curate/similarity/words.py`).
        offsets: `(n + 1)` places in `data`.
        letters: Per ASCII byte the letter or digit it is in a word, in lower case; 0 for one between words.
        classes: Class of each code point (`tasks/curate/similarity/letters.py`); unused where all bytes are ASCII.
        scratch: Room for the longest word.
        sizes: Known words, and bytes of known words.
    """
    mask = np.uint64(slots.shape[0] - 1)
    n = np.int64(0)
    for row in range(offsets.shape[0] - 1):
        at, end = np.int64(offsets[row]), np.int64(offsets[row + 1])
        while at < end:
            n_bytes = np.int64(0)
            width = np.int64(1)
            mixed = _START
            while at < end:
                first = np.int64(data[at])
                width = np.int64(1)
                kind = np.int64(LETTER)
                if first < 0x80:
                    if letters[first] == 0:
                        break
                    scratch[n_bytes] = letters[first]
                elif first < 0xE0:
                    width = np.int64(2)
                    kind = np.int64(classes[(first & 0x1F) << 6 | np.int64(data[at + 1] & 0x3F)])
                else:
                    width = np.int64(3 if first < 0xF0 else 4)
                    code = first & (0x0F if first < 0xF0 else 0x07)
                    for k in range(1, width):
                        code = code << 6 | np.int64(data[at + k] & 0x3F)
                    kind = np.int64(classes[code])
                if kind == SEPARATOR or (kind == LONE and n_bytes > 0):
                    break
                if kind != INVISIBLE:
                    for k in range(width):
                        if first >= 0x80:
                            scratch[n_bytes] = data[at + k]
                        mixed = (mixed ^ np.uint64(scratch[n_bytes])) * _PRIME
                        n_bytes += 1
                at += width
                if kind == LONE:
                    break
            if n_bytes == 0:
                at += width
                continue
            slot = (mixed * _SPREAD) >> _HALF & mask
            word = np.int64(slots[slot])
            while word >= 0:
                if word_hashes[word] == mixed:
                    start = word_ends[word]
                    same = word_ends[word + 1] - start == n_bytes
                    for k in range(n_bytes):
                        if not same:
                            break
                        same = word_bytes[start + k] == scratch[k]
                    if same:
                        break
                slot = (slot + np.uint64(1)) & mask
                word = np.int64(slots[slot])
            if word < 0 and learn:
                word = sizes[0]
                slots[slot] = word
                word_hashes[word] = mixed
                for k in range(n_bytes):
                    word_bytes[sizes[1] + k] = scratch[k]
                sizes[0] += 1
                sizes[1] += n_bytes
                word_ends[word + 1] = sizes[1]
            out[n] = word
            n += 1
        out_ends[row] = n
    return n


@kernel()
def number_grams(
    words: Any,
    ends: Any,
    n_words: Any,
    gap: Any,
    slots: Any,
    learned: Any,
    gram_starts: Any,
    gram_hashes: Any,
    n_known: Any,
    learn: Any,
    last: Any,
    out: Any,
    out_ends: Any,
) -> Any:
    """Write the numbers of the distinct known n-grams of each text to `out`; return how many n-grams are known.

    Args:
        gap: Place of a word in the n-gram that may be any word, also an unknown one; 0 for none.
        learned: Word numbers of the texts the n-grams were learned from.
        gram_starts: Where in `learned` each n-gram was first seen.
        last: Per n-gram -1.
    """
    mask = np.uint64(slots.shape[0] - 1)
    n = np.int64(0)
    at = np.int64(0)
    oldest, in_gap = np.uint64(1), np.uint64(1)
    for k in range(n_words):
        oldest *= _SPREAD
        if k < n_words - 1 - gap:
            in_gap *= _SPREAD
    every = np.int64((1 << n_words) - 1)
    may_be_unknown = np.int64(1 << (n_words - 1 - gap)) if gap > 0 else np.int64(0)
    for row in range(ends.shape[0]):
        known = np.int64(0)  # a bit for each of the last words, the newest lowest
        first_of_row = at
        rolling = _NOTHING
        while at < ends[row]:
            word = np.int64(words[at])
            at += 1
            # A polynomial in the last words, from which the oldest is taken out as one is added; unknown ones are 0.
            known = (known << 1 | np.int64(word >= 0)) & every
            rolling = rolling * _SPREAD + np.uint64(word + 1)
            first = at - n_words
            if first > first_of_row:
                rolling -= np.uint64(words[first - 1] + 1) * oldest
            if known | may_be_unknown != every:
                continue
            mixed = rolling - np.uint64(words[first + gap] + 1) * in_gap if gap > 0 else rolling
            mixed = (mixed ^ (mixed >> _HALF)) * _PRIME
            slot = (mixed * _SPREAD) >> _HALF & mask
            gram = np.int64(slots[slot])
            while gram >= 0:
                if gram_hashes[gram] == mixed:
                    same = True
                    for k in range(n_words):
                        if not same:
                            break
                        same = (gap > 0 and k == gap) or learned[gram_starts[gram] + k] == words[first + k]
                    if same:
                        break
                slot = (slot + np.uint64(1)) & mask
                gram = np.int64(slots[slot])
            if gram < 0 and learn:
                gram = n_known
                slots[slot] = gram
                gram_hashes[gram] = mixed
                gram_starts[gram] = first
                n_known += 1
            if gram >= 0 and last[gram] != row:
                last[gram] = row
                out[n] = gram
                n += 1
        out_ends[row] = n
    return n_known
