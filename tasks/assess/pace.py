"""Whether timed answers show that a limit on seconds is kept or exceeded: numbers in, 1, 0 or -1 out.

Each held-out item counts once, so that the answers are as many cases as there are items; more rounds over the same
items only show the same ones again.
"""

import math
from collections.abc import Sequence

import numpy as np

from tasks.assess.compare import estimate_mean
from tasks.assess.contract import sign_p

KEPT, NOT_SHOWN, EXCEEDED = 1, 0, -1
LEAST_TIMED = 30
"""Answers without which a mean is not bounded."""


def percentile_shown(
    ours: Sequence[float], theirs: Sequence[float], *, ratio_max: float, alpha: float, share: float = 0.95
) -> int:
    """Compare a percentile with `ratio_max` times that of the other model on the same items.

    If the two are equal, each model exceeds any threshold near them as often as the other; so the answers beyond the
    pooled percentile are counted which only one of the models has. Exact at any number of items for models whose
    seconds differ by a factor alone; of 16 items one is beyond, and nothing is shown.

    >>> quick = [1.0 + number / 100 for number in range(100)]
    >>> slow = [2 * each for each in quick]
    >>> percentile_shown(slow, quick, ratio_max=1.5, alpha=0.05)
    -1
    >>> percentile_shown(slow, quick, ratio_max=2.5, alpha=0.05)
    1

    Args:
        ours: Seconds per item, in the order of `theirs`.
        alpha: Error probability of each of the two answers.
    """
    a, b = np.asarray(ours, np.float64), ratio_max * np.asarray(theirs, np.float64)
    both = np.sort(np.concatenate([a, b]))
    threshold = both[int(np.ceil(share * len(both))) - 1]
    only_ours, only_theirs = (
        int(((a > threshold) & (b <= threshold)).sum()),
        int(((b > threshold) & (a <= threshold)).sum()),
    )
    if float(sign_p(only_ours, only_theirs)) <= alpha:
        return KEPT
    return EXCEEDED if float(sign_p(only_theirs, only_ours)) <= alpha else NOT_SHOWN


def least_timed(alpha: float, *, share: float = 0.95) -> int:
    """Items without which `percentile_shown` shows nothing, however the seconds turn out.

    >>> least_timed(0.05)
    50

    Args:
        alpha: As there.
    """
    n_beyond = math.ceil(math.log2(1 / alpha))  # with one fewer, all of one model have a larger p-value
    return math.ceil(round(n_beyond / (2 * (1 - share)), 6))


def mean_shown(seconds: Sequence[float], *, limit: float, alpha: float) -> int:
    """Compare the mean of the items' seconds with a limit, by its bounds (bootstrap-t)."""
    values = np.asarray(seconds, np.float64)
    if len(values) < LEAST_TIMED or not values.std() > 0:
        return NOT_SHOWN
    bounds = estimate_mean(values).bounds(confidence=1 - alpha)
    return KEPT if bounds.upper <= limit else EXCEEDED if bounds.lower > limit else NOT_SHOWN
