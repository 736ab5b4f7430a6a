"""Kernels: which short text a short text rewords, and whether other texts share as much with it.

Weights are integers, so no result depends on an order.
"""

from typing import Any

from tasks.compute.kernels import kernel, part

_SLACK = 1e-9  # as in `tasks/curate/similarity/kernels/comparing.py`
_MIN_WORDS = 3
_COST_OF_BREAK = 1.0
"""Words that a place costs where words were inserted, left out or moved; a replaced word costs itself only."""


@part()
def _weigh_common(run: Any, n_run: Any, words: Any, first: Any, n_words: Any, weights: Any, table: Any) -> Any:
    """Fill the table of the heaviest common subsequences; return the weight of the whole one."""
    for j in range(n_words + 1):
        table[0, j] = 0
    for i in range(n_run):
        table[i + 1, 0] = 0
        for j in range(n_words):
            heaviest = max(table[i, j + 1], table[i + 1, j])
            if run[i] == words[first + j]:
                heaviest = max(heaviest, table[i, j] + weights[run[i]])
            table[i + 1, j + 1] = heaviest
    return table[n_run, n_words]


@part()
def _read_common(run: Any, n_run: Any, n_words: Any, table: Any) -> Any:
    """Reduce `run` to the subsequence; return its length, and how often one side has words between that the other has
    not."""
    i, j, n_common, n_breaks, shift = n_run, n_words, 0, 0, 0
    at = n_run
    while i > 0 and j > 0:
        if table[i, j] == table[i - 1, j]:
            i -= 1
        elif table[i, j] == table[i, j - 1]:
            j -= 1
        else:
            n_breaks += n_common > 0 and i - j != shift
            shift = i - j
            n_common += 1
            at -= 1
            run[at] = run[i - 1]
            i -= 1
            j -= 1
    # Filled from the end, so that no word was overwritten before it was read.
    for k in range(n_common):
        run[k] = run[at + k]
    return n_common, n_breaks


@part()
def _count_others(
    run: Any, n_run: Any, least: Any, n_allowed: Any, one: Any, two: Any, words: Any, ends: Any, weights: Any,
    posting_ends: Any, postings: Any, stamp: Any, met: Any, order: Any, table: Any,
) -> Any:  # fmt: skip
    """Count the texts other than `one` and `two` that share at least `least` of the run; stop above `n_allowed`."""
    rest = 0
    for k in range(n_run):
        rest += weights[run[k]]
        place = k
        while place > 0 and weights[run[order[place - 1]]] < weights[run[k]]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = k
    n_others = 0
    for k in range(n_run):
        if rest < least:  # a text without the words before shares too little
            break
        word = run[order[k]]
        rest -= weights[word]
        for p in range(posting_ends[word - 1] if word else 0, posting_ends[word]):
            other = postings[p]
            if met[other] == stamp or (other - one) * (other - two) == 0:
                continue
            met[other] = stamp
            first = ends[other - 1] if other else 0
            if _weigh_common(run, n_run, words, first, ends[other] - first, weights, table) >= least:
                n_others += 1
                if n_others > n_allowed:
                    return n_others
    return n_others


@kernel()
def best_rewording(
    words: Any,
    ends: Any,
    n_held_out: Any,
    totals: Any,
    weights: Any,
    prefix_ends: Any,
    prefixes: Any,
    posting_ends: Any,
    postings: Any,
    min_similarity: Any,
    min_share: Any,
    share_of_others: Any,
    n_allowed: Any,
    met_held: Any,
    present: Any,
    met: Any,
    run: Any,
    order: Any,
    table: Any,
    best: Any,
    best_score: Any,
) -> Any:
    """Per text the held-out text that it rewords most closely, or -1; and the similarity.

    For held-out texts themselves -1 if too many other texts share what any rewording would share.

    Args:
        words, ends: All texts, first the held-out ones; a word that no held-out text has is -1.
        totals: Per held-out text the weight of its words.
        prefix_ends, prefixes: Per word the held-out texts that cannot be reworded without one of such words.
        posting_ends, postings: Per word the texts that hold it.
        min_similarity, min_share: Of the words, and of the held-out text's weight.
        share_of_others, n_allowed: How many other texts may share how much of the weight in common.
        met_held, met: Per held-out text and per text -1.
        present: Per word -1.
    """
    stamp = 0
    for text in range(ends.shape[0]):
        first, end = ends[text - 1] if text else 0, ends[text]
        size = end - first
        best[text] = -1
        best_score[text] = 0.0
        for k in range(first, end):
            if words[k] >= 0:
                present[words[k]] = text
        for k in range(first, end):
            word = words[k]
            if word < 0:
                continue
            for p in range(prefix_ends[word - 1] if word else 0, prefix_ends[word]):
                held = prefixes[p]
                if met_held[held] == text or (text < n_held_out and held != text):
                    continue
                met_held[held] = text
                start = ends[held - 1] if held else 0
                n_held = ends[held] - start
                n_most, most = 0, 0
                for h in range(start, ends[held]):
                    if present[words[h]] == text:
                        n_most += 1
                        most += weights[words[h]]
                if n_most < min_similarity * (n_held + size - n_most) - _SLACK or most < min_share * totals[held]:
                    continue
                for h in range(n_held):
                    run[h] = words[start + h]
                common = _weigh_common(run, n_held, words, first, size, weights, table)
                if common < min_share * totals[held]:
                    continue
                n_common, n_breaks = _read_common(run, n_held, size, table)
                shared = n_common - _COST_OF_BREAK * n_breaks
                score = shared / (n_held + size - shared)
                if score < min_similarity - _SLACK or n_common < _MIN_WORDS:
                    continue
                if score < best_score[text] or (score == best_score[text] and held >= best[text] >= 0):
                    continue
                stamp += 1
                n_others = _count_others(
                    run, n_common, share_of_others * common, n_allowed, held, text, words, ends, weights,
                    posting_ends, postings, stamp, met, order, table,
                )  # fmt: skip
                if n_others <= n_allowed:
                    best[text] = held
                    best_score[text] = score
    return stamp
