"""Find the short texts that reword short held-out texts: most words in their order, in a combination that is rare.

Short questions of one trade share word frames, so how much two of them share says little: what counts is that hardly
another text shares as much. Frames drop out of themselves, however common their words are.

Texts are numbers of words (`tasks/curate/similarity/containment.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.curate.similarity.containment import WEIGHT_UNIT, Ints, NumberLists, Numbers, sum_per_text
from tasks.curate.similarity.kernels.rewording import best_rewording

MAX_WORDS = 24
"""Words of the longest held-out text that is compared. Longer ones have enough n-grams of their own."""
_MIN_WORDS = 3
_MIN_SIMILARITY, MIN_SHARE = 0.55, 0.68
"""Of the words, and of the weight of the held-out text."""
_N_OTHERS, _SHARE_OF_OTHERS = 1, 0.7
"""How many other texts may share how much of the weight in common. Of 60 templates with a quarter of the words replaced
at random, 24 to 27 are found with 70 %, 9 to 17 with 60 %."""


@dataclass(frozen=True)
class Reworded:
    """What the comparison found."""

    best: Numbers
    """Per text of the pool the held-out text that it rewords, or -1."""
    scores: NDArray[np.float64]
    protected: NDArray[np.bool_]
    """Per held-out text whether a rewording of it can be found."""


def short_texts(words: NumberLists) -> NumberLists:
    """Return the words of the held-out texts that are compared; none of the others."""
    return _only(words, words.sizes <= MAX_WORDS)


def comparable_texts(words: NumberLists, held_out: NumberLists) -> NumberLists:
    """Return the words of the texts that may reword some held-out text: neither is twice as long as the other."""
    lengths = np.unique(held_out.sizes)
    lengths = lengths[lengths >= _MIN_WORDS]
    possible = np.zeros(2 * MAX_WORDS + 2, bool)  # the last: all longer ones
    for n_words in lengths.tolist():
        possible[max(_MIN_WORDS, (n_words + 1) // 2) : 2 * n_words + 1] = True
    return _only(words, possible[np.minimum(words.sizes, 2 * MAX_WORDS + 1)])


def find_reworded(pool: Sequence[NumberLists], held_out: NumberLists, *, margin: float) -> Reworded:
    """Compare each text of the pool with each held-out text of at most `MAX_WORDS` words.

    What two texts have in common is their heaviest common subsequence of words, each weighted by ln((1 + N)/df): N
    texts are compared on both sides, df hold it. Their similarity is the number of words in common as a share of all
    words, less one word for each place where one side has more words between than the other. A text
    rewords a held-out one if their similarity is at least 0.55, if they have 68 % of the held-out text's weight in
    common, and if at most one other text shares 70 % of that.

    Args:
        pool: `comparable_texts` of each batch.
        held_out: `short_texts`.
        margin: Raises the least similarity, and lowers the share from which other texts count.
    """
    texts = _join([held_out, *pool])
    n_held_out, n_texts = len(held_out.ends), len(texts.ends)
    # Of all texts: a word may be in long held-out texts alone, which are not compared, and in texts of the pool.
    n_words = int(texts.values.max(initial=-1)) + 1
    known = texts.values >= 0
    numbers = np.repeat(np.arange(n_texts, dtype=np.int32), texts.sizes)[known]
    pairs = np.unique(texts.values[known].astype(np.int64) * n_texts + numbers)
    frequencies = np.bincount(pairs // n_texts, minlength=n_words)
    n_compared = int(np.count_nonzero(texts.sizes))
    most = int(frequencies.max(initial=0))
    table = [0, *(round(WEIGHT_UNIT * math.log((1 + n_compared) / df)) for df in range(1, most + 1))]
    weights = np.array(table, np.int64)[frequencies]
    totals = sum_per_text(weights, held_out)
    limits = (np.minimum(_MIN_SIMILARITY + margin, 1), MIN_SHARE, _SHARE_OF_OTHERS - margin, _N_OTHERS)
    longest = 2 * MAX_WORDS + 1
    places = (totals, weights, *_prefixes(held_out, weights, totals), np.cumsum(frequencies))
    stamps = (np.full(n_held_out, -1, np.int64), np.full(n_words, -1, np.int64), np.full(n_texts, -1, np.int64))
    work = (np.empty(longest, np.int32), np.empty(longest, np.int64), np.empty((longest, longest), np.int64))
    best, scores = np.empty(n_texts, np.int32), np.empty(n_texts)
    best_rewording(
        texts.values, texts.ends, n_held_out, *places, (pairs % n_texts).astype(np.int32), *limits, *stamps, *work,
        best, scores,
    )  # fmt: skip
    return Reworded(best[n_held_out:], scores[n_held_out:], best[:n_held_out] >= 0)


def _prefixes(held_out: NumberLists, weights: Ints, totals: Ints) -> tuple[Ints, Numbers]:
    """Return per word the held-out texts that share too little weight without it and their still rarer words."""
    words = held_out.values.astype(np.int64)
    owners = np.repeat(np.arange(len(totals), dtype=np.int32), held_out.sizes)
    order = np.lexsort((words, -weights[words], owners))
    words, owners = words[order], owners[order]
    rarer = np.cumsum(weights[words]) - weights[words] - (np.cumsum(totals) - totals)[owners]
    chosen = totals[owners] - rarer >= MIN_SHARE * totals[owners]
    words, owners = words[chosen], owners[chosen]
    ends = np.cumsum(np.bincount(words, minlength=len(weights)))
    return ends, owners[np.argsort(words, kind="stable")]


def _only(rows: NumberLists, chosen: Any) -> NumberLists:
    sizes = np.where(chosen, rows.sizes, 0)
    return NumberLists(rows.values[np.repeat(chosen, rows.sizes)], np.cumsum(sizes))


def _join(parts: Sequence[NumberLists]) -> NumberLists:
    sizes = np.concatenate([part.sizes for part in parts])
    return NumberLists(np.concatenate([part.values for part in parts]), np.cumsum(sizes))
