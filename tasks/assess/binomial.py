"""Tails of the binomial distribution by `scipy.special`: importing `scipy.stats` takes most of a second.

Equal to `scipy.stats.binom.sf` and `isf` to the last bit.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def exceeds(k: ArrayLike, n: ArrayLike, share: ArrayLike) -> Floats:
    """Return P(X > k) of n items that are each right with probability `share`.

    >>> exceeds([-1, 0, 1, 2], 2, 0.5).tolist()
    [1.0, 0.75, 0.25, 0.0]
    """
    from scipy.special import betainc

    k, n = np.asarray(k, np.float64), np.asarray(n, np.float64)
    inside = betainc(np.maximum(k, 0) + 1, np.maximum(n - k, 1), share)
    return np.asarray(np.where(k < 0, 1.0, np.where(k >= n, 0.0, inside)))


def exceeded_by(alpha: float, n: ArrayLike, share: float) -> Floats:
    """Return the smallest k with P(X > k) <= alpha.

    >>> exceeded_by(0.05, [10, 149], 0.98).tolist()
    [10.0, 148.0]
    """
    from scipy.special import bdtrik

    found = np.ceil(bdtrik(1 - alpha, n, share))
    below = np.maximum(found - 1, 0)
    return np.asarray(np.where(exceeds(below, n, share) <= alpha, below, found))
