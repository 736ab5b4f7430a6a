"""Kernels: which held-out text a text contains most of, and which is most similar, by the numbers of their n-grams.

Counts and weights are integers, so no result depends on an order.
"""

from typing import Any

import numpy as np

from tasks.compute.kernels import kernel

_SLACK = 1e-9  # as in `tasks/curate/similarity/kernels/comparing.py`


@kernel()
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
    held_sizes: Any,
    sizes: Any,
    n_short: Any,
    shared: Any,
    met: Any,
    marked: Any,
    best: Any,
    best_shared: Any,
) -> Any:
    """Per text the held-out text of which it holds the greatest share by weight, or -1 when none reaches `threshold`.

    Of equal shares the lowest text wins.

    Args:
        postings: Held-out texts that hold gram g, at `[posting_ends[g - 1], posting_ends[g])`.
        min_pieces: Least number of pieces of the held-out text that are shared: maximal runs of its distinct n-grams
            (in the order of first occurrence) that the text holds, of which at least one has weight.
        held_sizes, sizes, n_short: Words of the texts; a held-out text of at most `n_short` words is not found in a
            text that is neither twice as long nor half as long.
        shared, met: Per held-out text 0 and anything.
        marked: Per n-gram -1.
    """
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
            n_held = held_sizes[other]
            if n_held <= n_short and sizes[row] <= 2 * n_held and n_held <= 2 * sizes[row]:
                better = False
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
    return first


@kernel()
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
    marked: Any,
    met: Any,
    best: Any,
    best_common: Any,
) -> Any:
    """Per text the held-out text of greatest Jaccard similarity, or -1 when none reaches `threshold`.

    Return the number of comparisons; it stops after more than `n_allowed`.

    Args:
        sizes: Distinct n-grams of each text, unknown ones included; negative: skip the text.
        postings: Held-out texts by the n-grams of their rare prefix.
        held_grams: Of each held-out text, rarest first, so that dissimilar texts are rejected early.
        marked: Per n-gram -1.
        met: Per held-out text -1.
    """
    n_compared = np.int64(0)
    first = np.int64(0)
    least_common = threshold / (1.0 + threshold)
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
                    start = held_ends[other - 1] if other else 0
                    n_other = held_ends[other] - start
                    # J >= t needs this many in common; a rounding error may not add one.
                    need = np.int64(np.ceil(least_common * (sizes[row] + n_other) - _SLACK))
                    may_miss = n_other - need
                    if may_miss < 0 or end - first < need:
                        continue
                    n_compared += 1
                    n_missed = np.int64(0)
                    for h in range(start, held_ends[other]):
                        n_missed += marked[held_grams[h]] != row
                        if n_missed > may_miss:
                            break
                    if n_missed > may_miss:
                        continue
                    common = n_other - n_missed
                    score = common / (sizes[row] + held_ends[other] - start - common)
                    if score >= threshold and (score > best_score or (score == best_score and other < best[row])):
                        best_score = score
                        best[row] = other
                        best_common[row] = common
            if n_compared > n_allowed:
                return n_compared
        first = end
    return n_compared
