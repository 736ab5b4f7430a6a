"""Find texts with similar meaning by the cosine of static word embeddings, to be read and never merged.

Averaged word vectors see the topic, not what is said about it: "cancel my plan" and "reactivate my plan" score higher
than two phrasings of one question (measured in tests/tasks/curate/similarity/test_semantic.py). So none is removed.
The vectors are wordllama's, 256 numbers per token, from its wheel; nothing is downloaded. All pairs are compared, in
blocks: the time grows with the square of the number of texts, about a minute of one core for 50,000.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.extras import need_extra

BLOCK = 1024
"""Texts compared with all others at a time: 4 kB of scores per text."""
DECIMALS = 6
"""Decimals of a cosine: float32 vectors give no more, and equal input must give equal bytes."""
_NEAR = 1e-4  # blocks are compared in float32; candidates this close below the threshold are computed again


class SimilarMeanings(NamedTuple):
    """Pairs of text numbers, left < right, most similar first; and their cosines."""

    left: Any
    right: Any
    cosine: Any


def check_extra(where: str) -> None:
    """Check for the extra before any work is done.

    Raises:
        ConfigError: wordllama is not installed.
    """
    need_extra("semantic", what="`semantic`", where=where, instead="set `semantic: null`")


def similar_meanings(texts: Sequence[str], *, threshold: float, max_pairs: int) -> SimilarMeanings:
    """Return the pairs of texts with cosine >= threshold; of more than `max_pairs` the most similar, then the first.

    A text without a known word is similar to none. Texts must be in a fixed order (by ticket_id), because the last bits
    of the vectors depend on it.
    """
    vectors = embed(texts)
    found: list[Any] = []
    n_found = 0
    for start in range(0, len(texts), BLOCK):
        scores = vectors[start : start + BLOCK] @ vectors[start:].T
        left, right = np.nonzero(scores >= threshold - _NEAR)
        later = right > left
        found.append(_scored(vectors, left[later] + start, right[later] + start, threshold))
        n_found += len(found[-1])
        if n_found > 4 * max_pairs:
            found = [_best(found, max_pairs)]
            n_found = len(found[0])
    best = _best(found, max_pairs)
    return SimilarMeanings(best[:, 0].astype(np.int64), best[:, 1].astype(np.int64), best[:, 2])


def embed(texts: Sequence[str]) -> Any:
    """float32 (n, 256): the mean of each text's token vectors, of length 1; zeros for a text without a token."""
    if not texts:
        return np.zeros((0, 256), np.float32)
    vectors = _model().embed([text or " " for text in texts], norm=False)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


@cache
def _model() -> Any:
    import wordllama
    from wordllama import WordLlama

    # The wheel contains the tokenizer, but looks for it in a cache folder: name the wheel's own folder as the cache.
    return WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


def _scored(vectors: Any, left: Any, right: Any, threshold: float) -> Any:
    """Return (left, right, cosine) of the pairs that reach the threshold, each cosine computed alone, in float64."""
    cosines = np.empty(len(left))
    for start in range(0, len(left), BLOCK):
        part = slice(start, start + BLOCK)
        one, two = vectors[left[part]].astype(np.float64), vectors[right[part]].astype(np.float64)
        cosines[part] = np.einsum("ij,ij->i", one, two)
    cosines = np.minimum(cosines.round(DECIMALS), 1.0)
    keep = cosines >= threshold
    return np.stack([left[keep], right[keep], cosines[keep]], axis=1)


def _best(found: Sequence[Any], max_pairs: int) -> Any:
    pairs = np.concatenate([np.empty((0, 3)), *found])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0], -pairs[:, 2]))[:max_pairs]]
