"""What every engine script needs: the texts in, one answer per ticket out, and plain Python's shingles.

A script is run as `python x_engine.py MODE CORPUS ANSWER` in an environment of its own, which has nothing of the
application; so this module imports pyarrow and numpy alone. The task is the same for all: words are `\\w+` of the
lower-cased text, shingles are runs of 3 words, the threshold is a Jaccard similarity of 0.7, signatures have 128
slots in 32 bands of 4, unless a mode says otherwise.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

THRESHOLD = 0.7
N_SLOTS = 128
N_BANDS = 32
SEED = 42
_WORD = re.compile(r"\w+")


def arguments() -> tuple[str, Path, Path]:
    """Mode, corpus and answer file."""
    mode, corpus, answer = sys.argv[1:4]
    return mode, Path(corpus), Path(answer)


def read_texts(corpus: Path) -> list[str]:
    """The texts in the order of their ids, which count from 0."""
    return pq.read_table(corpus, columns=["text"])["text"].to_pylist()


def shingle_lists(texts: Iterable[str]) -> list[list[str]]:
    """Each text's runs of three words, repeated ones included: sketches do not mind."""
    found = []
    for text in texts:
        words = _WORD.findall(text.lower())
        runs = [f"{one} {two} {three}" for one, two, three in zip(words, words[1:], words[2:], strict=False)]
        found.append(runs or [" ".join(words)])
    return found


def shingle_batches(texts: list[str], size: int = 10_000) -> Iterator[list[list[str]]]:
    """`shingle_lists` some thousand texts at a time, for interfaces that need not see all at once: less memory."""
    for start in range(0, len(texts), size):
        yield shingle_lists(texts[start : start + size])


def join_pairs(n: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """Cluster of each ticket: the smallest id connected with it."""
    parent = list(range(n))

    def root_of(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for one, two in pairs:
        low, high = sorted((root_of(one), root_of(two)))
        parent[high] = low
    return np.array([root_of(one) for one in range(n)])


def estimated(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two signatures agree in enough slots."""
    return int((one == two).sum()) >= THRESHOLD * N_SLOTS


def write_answer(path: Path, name: str, values: np.ndarray | list[int] | list[bool]) -> None:
    """One row per ticket: `cluster`, `keep` (stays), or `flag` (has a partner)."""
    column = pa.array(values)
    pq.write_table(pa.table({"id": pa.array(np.arange(len(column))), name: column}), path)
