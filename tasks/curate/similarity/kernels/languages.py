"""Kernels: the language of texts by a fastText model with character n-grams and a tree of labels.

Every operation is fastText's, in the same order and precision (float32), so that labels and scores are equal. Only
fastText's overhead is left out: streams, one string for each n-gram, one call for each text. The tables
are made by `tasks/curate/language_model.py`.
"""

import math
from typing import Any

import numpy as np

from tasks.compute.kernels import kernel, part

LABEL_MARK = b"__label__"
"""A token with this prefix is not a word."""
MOST_NODES = 512
"""Size of the stack that walks the tree."""
_START, _PRIME = np.uint64(2166136261), np.uint64(16777619)  # FNV-1a, 32 bits
_LOW, _HIGH_BITS, _MARK_BYTE = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFF00), np.uint64(0x80)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(40)
_LEAST, _MOST = 2, 4  # characters of an n-gram
_EMPTY = np.int64(-1)


@part()
def _hashed(mixed: Any, byte: Any) -> Any:
    """FNV-1a as fastText has it: the byte is signed."""
    value = np.uint64(byte)
    if value >= _MARK_BYTE:
        value |= _HIGH_BITS
    return ((mixed ^ value) * _PRIME) & _LOW


@part()
def _list_grams(token: Any, size: Any, n_buckets: Any, met: Any, keys: Any, rows: Any, out: Any, n: Any) -> Any:
    """Append the matrix rows of the n-grams of `<word>` to the `n` in `out`; return the new number of rows."""
    mask = np.uint64(keys.shape[0] - 1)
    for first in range(size):
        if token[first] & 0xC0 == 0x80:  # inside a character
            continue
        at = first
        mixed = _START
        length = 1
        while at < size and length <= _MOST:
            mixed = _hashed(mixed, token[at])
            at += 1
            while at < size and token[at] & 0xC0 == 0x80:
                mixed = _hashed(mixed, token[at])
                at += 1
            if length >= _LEAST:
                bucket = np.int64(mixed % n_buckets)
                if met[bucket >> 3] >> (bucket & 7) & 1:
                    slot = (np.uint64(bucket) * _SPREAD) >> _SHIFT & mask
                    while keys[slot] != bucket and keys[slot] != _EMPTY:
                        slot = (slot + np.uint64(1)) & mask
                    if keys[slot] == bucket:
                        out[n] = rows[slot]
                        n += 1
            length += 1
    return n


@part()
def _word_at(token: Any, size: Any, slots: Any, word_bytes: Any, word_ends: Any) -> Any:
    """The number of the word between the marks `<` and `>` of the token, or -1."""
    mixed = _START
    for k in range(1, size - 1):
        mixed = _hashed(mixed, token[k])
    mask = np.uint64(slots.shape[0] - 1)
    slot = mixed & mask
    while slots[slot] >= 0:
        word = slots[slot]
        start = word_ends[word - 1] if word else np.int64(0)
        same = word_ends[word] - start == size - 2
        for k in range(size - 2):
            if not same:
                break
            same = word_bytes[start + k] == token[k + 1]
        if same:
            return np.int64(word)
        slot = (slot + np.uint64(1)) & mask
    return np.int64(-1)


@kernel()
def learn_words(
    word_bytes: Any, word_ends: Any, slots: Any, token: Any, n_buckets: Any, met: Any, keys: Any, rows: Any,
    word_rows: Any, row_ends: Any,
) -> Any:  # fmt: skip
    """Enter the vocabulary in `slots` and write the matrix rows of each word and of its n-grams; return how many.

    The first word is the end of a line, which has no n-grams.
    """
    n = np.int64(0)
    start = np.int64(0)
    mask = np.uint64(slots.shape[0] - 1)
    for word in range(word_ends.shape[0]):
        mixed = _START
        size = np.int64(1)
        token[0] = 60
        for k in range(start, word_ends[word]):
            mixed = _hashed(mixed, word_bytes[k])
            token[size] = word_bytes[k]
            size += 1
        token[size] = 62
        start = word_ends[word]
        slot = mixed & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = word
        word_rows[n] = word
        n += 1
        if word > 0:
            n = _list_grams(token, size + 1, n_buckets, met, keys, rows, word_rows, n)
        row_ends[word] = n
    return n


@kernel()
def classify_texts(
    data: Any, offsets: Any, label_mark: Any, word_bytes: Any, word_ends: Any, slots: Any, word_rows: Any,
    row_ends: Any, n_buckets: Any, met: Any, keys: Any, rows: Any, matrix: Any, branches: Any, inner: Any,
    token: Any, found: Any, hidden: Any, nodes: Any, scores: Any, labels: Any, out: Any,
) -> Any:  # fmt: skip
    """Write the likeliest label of each text and its probability.

    Args:
        data: UTF-8; a text ends at its first line break.
        matrix: The vectors of words and n-grams.
        branches: Left and right child of each inner node; the root is the last.
        inner: The vectors of the inner nodes.
        token, found, hidden, nodes, scores: Room for the longest token, a text's rows, its vector, the tree's walk.
    """
    n_labels = inner.shape[0]
    dim = matrix.shape[1]
    for text in range(offsets.shape[0] - 1):
        n_found = np.int64(0)
        at, end = np.int64(offsets[text]), np.int64(offsets[text + 1])
        token[0] = 60
        size = np.int64(1)
        while at <= end:
            byte = np.int64(data[at]) if at < end else np.int64(10)
            at += 1
            if byte != 32 and byte != 0 and (byte < 9 or byte > 13):
                token[size] = byte
                size += 1
                continue
            if size > 1:
                token[size] = 62
                word = _word_at(token, size + 1, slots, word_bytes, word_ends)
                if word == 0:  # the end-of-line mark, written out: fastText reads it as one
                    break
                if word > 0:
                    for k in range(row_ends[word - 1], row_ends[word]):
                        found[n_found] = word_rows[k]
                        n_found += 1
                else:
                    is_label = size - 1 >= label_mark.shape[0]
                    for k in range(label_mark.shape[0]):
                        is_label = is_label and token[k + 1] == label_mark[k]
                    if not is_label:
                        n_found = _list_grams(token, size + 1, n_buckets, met, keys, rows, found, n_found)
                size = np.int64(1)
            if byte == 10:
                break
        found[n_found] = 0  # the end of the line is a word too
        n_found += 1
        for j in range(dim):
            hidden[j] = np.float32(0)
        for k in range(n_found):
            for j in range(dim):
                hidden[j] += matrix[found[k], j]
        mean = np.float32(1.0 / np.float64(n_found))
        for j in range(dim):
            hidden[j] *= mean
        best, best_score = np.int64(-1), np.float32(-np.inf)
        n_nodes = 1
        nodes[0], scores[0] = 2 * n_labels - 2, np.float32(0)
        while n_nodes:
            n_nodes -= 1
            node, score = np.int64(nodes[n_nodes]), scores[n_nodes]
            if score < best_score:
                continue
            if node < n_labels:
                best, best_score = node, score
                continue
            place = node - n_labels
            product = np.float32(0)
            for j in range(dim):
                product += inner[place, j] * hidden[j]
            share = np.float32(1.0 / np.float64(np.float32(1) + math.exp(-product)))
            # The left branch comes first, so the right one lies below it.
            nodes[n_nodes] = branches[2 * place + 1]
            scores[n_nodes] = score + np.float32(math.log(np.float64(share) + 1e-5))
            n_nodes += 1
            nodes[n_nodes] = branches[2 * place]
            rest = np.float32(1.0 - np.float64(share))
            scores[n_nodes] = score + np.float32(math.log(np.float64(rest) + 1e-5))
            n_nodes += 1
        labels[text] = best
        out[text] = math.exp(best_score)
    return np.int64(0)
