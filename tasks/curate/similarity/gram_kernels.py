"""Compiled loops over text: numbered words, numbered n-grams, weighted overlap. Exact: a hash only picks the slot.

Words and n-grams of the held-out side are numbered in two open-addressing tables; a slot is taken as a match only when
the bytes (of a word) or the word numbers (of an n-gram) are equal. Counts and weights are integers, so no sum depends
on an order. Every loop runs without the GIL over a range of rows; nothing here starts a thread.

It knows nothing of tickets, files or what a threshold means. Imported by `tasks/curate/similarity/containment.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.curate.similarity.kernel import kernel

# Arrow's buffers are read-only; a kernel compiled for such arrays takes others too.
_BYTES, _NUMBERS, _ENDS = (f"Array({kind}, 1, 'C', readonly=True)" for kind in ("uint8", "int32", "int64"))
_START = np.uint64(0xCBF29CE484222325)  # FNV-1a, 64 bits
_PRIME = np.uint64(0x100000001B3)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
UNKNOWN = -1
"""Number of a word or n-gram that the held-out side does not have."""


def letters_of_bytes() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Byte -> the byte it is as part of a word, 0 for one between words.

    ASCII letters become lower case, digits stay, and every byte from 128 on belongs to a word: of text that is not
    ASCII the normal form must be given, which holds letters, digits, marks and spaces alone.
    """
    table = np.zeros(256, np.uint8)
    for byte in range(256):
        if byte >= 128 or chr(byte).isalnum():
            table[byte] = ord(chr(byte).lower()) if byte < 128 else byte
    return table


@kernel(
    f"int64({_BYTES}, {_NUMBERS}, {_BYTES}, int32[::1], uint8[::1], int64[::1], uint64[::1], int64[::1], boolean, "
    "int32[::1], int64[::1])"
)
def number_words(
    data: Any,
    offsets: Any,
    letters: Any,
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
    have room), without they are `UNKNOWN`. sizes: [known words, bytes of known words].
    """
    mask = np.uint64(slots.shape[0] - 1)
    n = 0
    for row in range(offsets.shape[0] - 1):
        at, end = np.int64(offsets[row]), np.int64(offsets[row + 1])
        while at < end:
            if letters[data[at]] == 0:
                at += 1
                continue
            first = at
            mixed = _START
            while at < end and letters[data[at]] != 0:
                mixed = (mixed ^ np.uint64(letters[data[at]])) * _PRIME
                at += 1
            slot = (mixed * _SPREAD) >> _HALF & mask
            word = slots[slot]
            while word >= 0:
                if word_hashes[word] == mixed:
                    start = word_ends[word]
                    same = word_ends[word + 1] - start == at - first
                    for k in range(at - first):
                        if not same:
                            break
                        same = word_bytes[start + k] == letters[data[first + k]]
                    if same:
                        break
                slot = (slot + np.uint64(1)) & mask
                word = slots[slot]
            if word < 0 and learn:
                word = np.int32(sizes[0])
                slots[slot] = word
                word_hashes[word] = mixed
                for k in range(at - first):
                    word_bytes[sizes[1] + k] = letters[data[first + k]]
                sizes[0] += 1
                sizes[1] += at - first
                word_ends[word + 1] = sizes[1]
            out[n] = word
            n += 1
        out_ends[row] = n
    return n


@kernel(
    f"int64({_NUMBERS}, {_ENDS}, int64, int32[::1], {_NUMBERS}, int64[::1], uint64[::1], int64, boolean, "
    "int32[::1], int64[::1])"
)
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
    out: Any,
    out_ends: Any,
) -> Any:
    """Write the numbers of the distinct known n-grams of each text to `out`; return how many n-grams are known.

    learned: word numbers of the texts the n-grams were learned from; gram_starts: where in it each was first seen.
    """
    mask = np.uint64(slots.shape[0] - 1)
    last = np.full(gram_starts.shape[0], -1, np.int64)
    n = np.int64(0)
    at = np.int64(0)
    for row in range(ends.shape[0]):
        known_run = np.int64(0)
        while at < ends[row]:
            known_run = known_run + 1 if words[at] >= 0 else np.int64(0)
            at += 1
            if known_run < n_words:
                continue
            first = at - n_words
            mixed = _START
            for k in range(n_words):
                mixed = (mixed ^ np.uint64(words[first + k] + 1)) * _SPREAD
                mixed ^= mixed >> _HALF
            slot = (mixed * _SPREAD) >> _HALF & mask
            gram = slots[slot]
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
                gram = slots[slot]
            if gram < 0 and learn:
                gram = np.int32(n_known)
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


@kernel(
    f"void({_NUMBERS}, {_ENDS}, {_ENDS}, {_ENDS}, {_NUMBERS}, {_ENDS}, {_NUMBERS}, {_ENDS}, float64, int64, "
    "int32[::1], int64[::1])"
)
def best_containment(
    grams: Any,
    ends: Any,
    weights: Any,
    posting_ends: Any,
    postings: Any,
    held_ends: Any,
    held_grams: Any,
    totals: Any,
    threshold: Any,
    min_pieces: Any,
    best: Any,
    best_shared: Any,
) -> None:
    """Per text the held-out text of which it holds the greatest share by weight, or -1 when none reaches `threshold`.

    postings: texts that hold gram g, at [posting_ends[g - 1], posting_ends[g]); of equal shares the lowest text wins.
    min_pieces: least number of pieces of the held-out text that are shared: maximal runs of its distinct n-grams (in
    the order of first occurrence) that the text holds, of which at least one has weight.
    """
    shared = np.zeros(totals.shape[0], np.int64)
    met = np.empty(totals.shape[0], np.int32)
    marked = np.full(posting_ends.shape[0], -1, np.int64)
    first = np.int64(0)
    for row in range(ends.shape[0]):
        n_met = 0
        for at in range(first, ends[row]):
            gram = grams[at]
            marked[gram] = row
            if weights[gram] > 0:
                for k in range(posting_ends[gram - 1] if gram else 0, posting_ends[gram]):
                    other = postings[k]
                    if shared[other] == 0:
                        met[n_met] = other
                        n_met += 1
                    shared[other] += weights[gram]
        first = ends[row]
        best[row] = -1
        best_score = 0.0
        for k in range(n_met):
            other = met[k]
            score = shared[other] / totals[other]
            better = score > best_score or (score == best_score and other < best[row])
            if score >= threshold and better:
                n_pieces, counted = 0, False
                for h in range(held_ends[other - 1] if other else 0, held_ends[other]):
                    if marked[held_grams[h]] != row:
                        counted = False
                    elif weights[held_grams[h]] > 0 and not counted:
                        counted = True
                        n_pieces += 1
                if n_pieces >= min_pieces:
                    best_score = score
                    best[row] = other
                    best_shared[row] = shared[other]
            shared[other] = 0


@kernel(
    f"int64({_NUMBERS}, {_ENDS}, {_ENDS}, {_ENDS}, {_NUMBERS}, {_ENDS}, {_NUMBERS}, float64, int64, int32[::1], "
    "int64[::1])"
)
def best_jaccard(
    grams: Any,
    ends: Any,
    sizes: Any,
    posting_ends: Any,
    postings: Any,
    held_ends: Any,
    held_grams: Any,
    threshold: Any,
    n_allowed: Any,
    best: Any,
    best_common: Any,
) -> Any:
    """Per text the held-out text of greatest Jaccard similarity, or -1 when none reaches `threshold`.

    sizes: distinct n-grams of each text, unknown ones included (negative: pass over the text). postings: held-out
    texts by the n-grams of their rare prefix. Return the comparisons made; more than `n_allowed` end the work.
    """
    n_held = held_ends.shape[0]
    marked = np.full(posting_ends.shape[0], -1, np.int64)
    met = np.full(n_held, -1, np.int64)
    n_compared = np.int64(0)
    first = np.int64(0)
    for row in range(ends.shape[0]):
        end = ends[row]
        best[row] = -1
        best_score = 0.0
        if sizes[row] >= 0:
            for k in range(first, end):
                marked[grams[k]] = row
            for k in range(first, end):
                gram = grams[k]
                for p in range(posting_ends[gram - 1] if gram else 0, posting_ends[gram]):
                    other = postings[p]
                    if met[other] == row:
                        continue
                    met[other] = row
                    n_compared += 1
                    common = np.int64(0)
                    start = held_ends[other - 1] if other else 0
                    for h in range(start, held_ends[other]):
                        common += marked[held_grams[h]] == row
                    score = common / (sizes[row] + held_ends[other] - start - common)
                    if score >= threshold and (score > best_score or (score == best_score and other < best[row])):
                        best_score = score
                        best[row] = other
                        best_common[row] = common
            if n_compared > n_allowed:
                return n_compared
        first = end
    return n_compared
