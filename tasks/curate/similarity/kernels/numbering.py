"""Kernels: the words of texts as numbers, and the n-grams of numbered words. Exact: a hash only picks the slot.

Words and n-grams of one side are learned in two open-addressing tables; those of other texts count as met only when
the bytes (of a word) or the word numbers (of an n-gram) are equal. The texts learned from must be few; of all others
nothing is stored but the numbers they share.

They know nothing of tickets or scores. Called by `tasks/curate/similarity/containment.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.curate.similarity.kernels.tokenise import INVISIBLE, LETTER, LONE, SEPARATOR
from tasks.kernels.kernel import kernel

_START = np.uint64(0xCBF29CE484222325)  # FNV-1a, 64 bits
_PRIME = np.uint64(0x100000001B3)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_NOTHING = np.uint64(0)
UNKNOWN = -1
"""Number of a word or n-gram that the held-out side does not have."""


@kernel("u8[] i32[] u8[] u8[] u8[] i32[] u8[] i64[] u64[] i64[] i64 i32[] i64[]")
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


@kernel("i32[] i64[] i64 i32[] i32[] i64[] u64[] i64 i64 i64[] i32[] i64[]")
def number_grams(
    words: Any,
    ends: Any,
    n_words: Any,
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
        learned: Word numbers of the texts the n-grams were learned from.
        gram_starts: Where in `learned` each n-gram was first seen.
        last: Per n-gram -1.
    """
    mask = np.uint64(slots.shape[0] - 1)
    n = np.int64(0)
    at = np.int64(0)
    oldest = np.uint64(1)
    for _ in range(n_words):
        oldest *= _SPREAD
    for row in range(ends.shape[0]):
        known_run = np.int64(0)
        rolling = _NOTHING
        while at < ends[row]:
            word = np.int64(words[at])
            at += 1
            if word < 0:
                known_run, rolling = np.int64(0), _NOTHING
                continue
            # A polynomial in the words of the run: its oldest word goes as the newest comes.
            known_run += 1
            rolling = rolling * _SPREAD + np.uint64(word + 1)
            if known_run > n_words:
                rolling -= np.uint64(words[at - n_words - 1] + 1) * oldest
            if known_run < n_words:
                continue
            first = at - n_words
            mixed = (rolling ^ (rolling >> _HALF)) * _PRIME
            slot = (mixed * _SPREAD) >> _HALF & mask
            gram = np.int64(slots[slot])
            while gram >= 0:
                if gram_hashes[gram] == mixed:
                    same = True
                    for k in range(n_words):
                        if not same:
                            break
                        same = learned[gram_starts[gram] + k] == words[first + k]
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
