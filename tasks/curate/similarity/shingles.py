"""The shingle sets of many texts: read in batches, kept as 64-bit hashes, in memory or, if large, in a file.

Memory per text: 8 bytes for each of its shingles, 16 for its key, 12 for the place of its set. The text itself is held
only for the current batches (`BATCH_ROWS` rows for each thread and one more). Above `budget` bytes of hashes they go to
a temporary file that is mapped into memory, so that the system may evict what is not in use.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from tasks.compute.threads import n_threads
from tasks.curate.similarity.buffers import text_buffers
from tasks.curate.similarity.kernels.tokenise import shingle_texts
from tasks.curate.similarity.letters import ascii_classes, character_classes, fold_batch

B = TypeVar("B")
BATCH_ROWS = 4096
"""Texts per batch and thread: so few that the memory of one batch is used again for the next."""
_SHARE_OF_MEMORY = 4  # hashes may take a quarter of what is free


@dataclass(frozen=True)
class ShingleSets:
    """Per text, by its number: its distinct shingles (any order) and the key of its normal form."""

    hashes: Any
    """uint64, all sets one after the other."""
    starts: Any
    """int64: where in `hashes` a text's set starts."""
    sizes: Any
    """int32: its number of shingles; 0 for a text of fewer words than a shingle has."""
    keys: Any
    """uint64 (n, 2): equal for equal normal forms; 0, 0 for a text without a word."""

    def __len__(self) -> int:
        return len(self.sizes)

    def take(self, texts: Any) -> ShingleSets:
        """Return the sets of these texts, numbered in this order; the hashes are shared."""
        return ShingleSets(self.hashes, self.starts[texts], self.sizes[texts], self.keys[texts])


def shingle_sets(
    batches: Iterable[B],
    *,
    n_words: int,
    text_of: Callable[[B], pa.Array] = lambda batch: batch,
    budget: int | None = None,
    spill: Path | None = None,
) -> ShingleSets:
    """Shingle texts, in their order.

    Args:
        batches: Arrays of strings without nulls, or what `text_of` converts to them.
        text_of: Returns the texts of a batch; called on several threads.
        n_words: Words of a shingle.
        budget: Bytes of hashes held in memory; None: a quarter of the free memory.
        spill: Folder of the temporary file; None: the system's. The file is unlinked once it is open.
    """
    threads = n_threads()
    store = _HashStore(budget if budget is not None else _free_memory() // _SHARE_OF_MEMORY, spill)
    sizes, keys = [np.empty(0, np.int32)], [np.empty((0, 2), np.uint64)]
    # The room for a batch's hashes is used again: fresh memory for each batch costs as much as hashing its words.
    rooms = [_Room() for _ in range(threads + 1)]
    waiting: deque[tuple[_Room, Future[Any]]] = deque()

    def finish_oldest() -> None:
        room, shingled = waiting.popleft()
        n_hashes, batch_sizes, batch_keys = shingled.result()
        store.add(room.hashes[:n_hashes])
        rooms.append(room)
        sizes.append(batch_sizes)
        keys.append(batch_keys)

    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            if not rooms:
                finish_oldest()
            room = rooms.pop()
            waiting.append((room, pool.submit(_shingle_batch, batch, text_of, n_words, room)))
        while waiting:
            finish_oldest()
    all_sizes = np.concatenate(sizes)
    return ShingleSets(store.all(), starts_of(all_sizes), all_sizes, np.concatenate(keys))


def shingles_of_texts(texts: pa.ChunkedArray | Iterable[str], *, n_words: int) -> ShingleSets:
    """Shingle texts in memory, in their order; null counts as ''."""
    column = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([pa.array(texts, pa.string())])
    batches = (
        chunk.slice(start, BATCH_ROWS).fill_null("")
        for chunk in column.cast(pa.large_string()).chunks
        for start in range(0, len(chunk), BATCH_ROWS)
    )
    return shingle_sets(batches, n_words=n_words)


@dataclass
class _Room:
    """Memory for the hashes of a batch; it grows with the batches, and what it holds is lost at the next one."""

    hashes: Any = field(default_factory=lambda: np.empty(0, np.uint64))

    def at_least(self, n_hashes: int) -> Any:
        if len(self.hashes) < n_hashes:
            self.hashes = np.empty(n_hashes + n_hashes // 4, np.uint64)  # only pages that are written take memory
        return self.hashes


def _shingle_batch(batch: B, text_of: Callable[[B], pa.Array], n_words: int, room: _Room) -> tuple[int, Any, Any]:
    """Write the hashes into the room; return how many, and the sizes and keys of the texts."""
    texts = text_of(batch)
    n = len(texts)
    data, offsets = text_buffers(fold_batch(texts))
    is_ascii = data[offsets[0] : offsets[-1]].max(initial=0) < 128
    classes = ascii_classes() if is_ascii else character_classes()
    hashes = room.at_least(int(offsets[-1] - offsets[0]) // 2 + n + 1)
    sizes, keys = np.empty(n, np.int32), np.empty((n, 2), np.uint64)
    words = data[: len(data) // 8 * 8].view(np.uint64)
    ring = np.zeros(n_words, np.uint64)
    met = np.full(power_of_two(max(64, int(np.diff(offsets).max(initial=0)) + 1)), -1, np.int64)
    return shingle_texts(data, words, offsets, classes, ring, met, hashes, sizes, keys), sizes, keys


def starts_of(sizes: Any) -> Any:
    """Return where each set starts if all are stored one after the other; int64."""
    starts = np.zeros(len(sizes), np.int64)
    np.cumsum(sizes[:-1], out=starts[1:])
    return starts


def power_of_two(least: int) -> int:
    """Return the smallest power of two that is not less."""
    return 1 << max(0, least - 1).bit_length()


class _HashStore:
    """Collects hashes part by part, in memory up to a budget and in an unlinked file above it."""

    def __init__(self, budget: int, spill: Path | None) -> None:
        self._budget = budget
        self._spill = spill
        self._hashes = np.empty(0, np.uint64)
        self._n_hashes = 0
        self._file: Any = None

    def add(self, part: Any) -> None:
        before, self._n_hashes = self._n_hashes, self._n_hashes + len(part)
        if self._file is None and 8 * self._n_hashes > self._budget:
            self._file = tempfile.TemporaryFile(prefix="tunegate-shingles-", dir=self._spill)  # noqa: SIM115
            self._hashes[:before].tofile(self._file)
            self._hashes = np.empty(0, np.uint64)
        if self._file is not None:
            part.tofile(self._file)
            return
        if len(self._hashes) < self._n_hashes:
            # The system moves a large array by its page table, so that growing it copies nothing (Linux).
            self._hashes.resize(self._n_hashes + self._n_hashes // 8, refcheck=False)
        self._hashes[before : self._n_hashes] = part

    def all(self) -> Any:
        if self._file is None:
            self._hashes.resize(self._n_hashes, refcheck=False)
            return self._hashes
        self._file.flush()
        with self._file:
            return np.asarray(np.memmap(self._file, np.uint64, "r+"))


def _free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 4 * 2**30
