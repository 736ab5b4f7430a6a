"""Confidence bounds for right and wrong answers on the same held-out items: numbers in, numbers out.

Knows nothing of metrics, arms, files or verdicts; `tasks/assess/contract.py` and `judge.py` ask.

- right/wrong of two models on the same items: Tango's score interval, with a continuity correction of a quarter item.
  A percentile bootstrap passes 29 % of the models that sit exactly at a 2-point margin at n=20, because few or no
  items differ. Without the correction Tango passes up to 6.8 % (n=42, margin 10 points), with it never more than 5.0 %
  (every n from 20 to 100 and up to 2000, discordance 2 to 40 %, margins 0 to 10 points, by exact enumeration).
- share of right answers of one model: Clopper-Pearson. Wilson's interval lets 5.8 % through at n=100 and limit 0.9,
  and a limit that says "at 95 % confidence" must mean at most 5 %.

Every bound is one-sided at its own confidence: `lower` is below the true value with that probability, and so is
`upper` above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy costs a tenth of a second, and the flows import this file
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


CONTINUITY = 0.25
"""Items by which a difference is counted nearer to the hypothesis than it is."""


@dataclass(frozen=True)
class Bounds:
    """An estimate between two one-sided confidence bounds, in the unit of the values."""

    estimate: float
    lower: float
    upper: float


def z_value(confidence: float) -> float:
    """Quantile of the standard normal distribution.

    >>> round(z_value(0.95), 4)
    1.6449
    """
    return NormalDist().inv_cdf(confidence)


def tango_z(
    gained: ArrayLike, lost: ArrayLike, n_items: ArrayLike, difference: ArrayLike, *, continuity: float = 0.0
) -> Floats:
    """Score statistic of the hypothesis that the share gained minus the share lost is `difference`; broadcasts.

    Falls as `difference` grows; positive where the data speak for more than `difference`. 0 where the hypothesis
    leaves no variance.

    Args:
        gained: Items that only the candidate got right.
        lost: Items that only the reference got right.
        n_items: All paired items.
        difference: Hypothetical difference of the shares, -1 to 1.
        continuity: Items taken from what speaks for more than `difference`; negative: added to it.

    Source: Tango (1998), Statistics in Medicine 17:891-908, with the closed form of the restricted maximum
    likelihood estimate of the share lost.
    """
    import numpy as np

    b, c = np.asarray(gained, np.float64), np.asarray(lost, np.float64)
    n, delta = np.asarray(n_items, np.float64), np.asarray(difference, np.float64)
    half = -b - c + (2 * n - b + c) * delta
    rest = -c * delta * (1 - delta)
    share_lost = (np.sqrt(np.maximum(half**2 - 8 * n * rest, 0.0)) - half) / (4 * n)
    variance = n * (2 * share_lost + delta * (1 - delta))
    possible = variance > 0
    return np.where(possible, (b - c - n * delta - continuity) / np.sqrt(np.where(possible, variance, 1.0)), 0.0)


def tango_interval(
    gained: int, lost: int, n_items: int, *, confidence: float, continuity: float = CONTINUITY
) -> Bounds:
    """Bounds of the difference of two paired proportions, by inverting `tango_z`.

    With no item that differs the bounds are not 0 but at least `z**2 / (n + z**2)` away from it: few items prove
    little. With continuity 0 the interval is Tango's own.

    >>> bounds = tango_interval(12, 4, 200, confidence=0.95, continuity=0)
    >>> round(bounds.estimate, 3), round(bounds.lower, 3), round(bounds.upper, 3)
    (0.04, 0.008, 0.077)

    Raises:
        ValueError: counts that cannot be (negative, or more items differ than there are).
    """
    if n_items < 1 or min(gained, lost) < 0 or gained + lost > n_items:
        raise ValueError(f"impossible counts: {gained} gained and {lost} lost of {n_items} items")
    estimate = (gained - lost) / n_items
    z = z_value(confidence)

    def crossing(target: float, shift: float) -> tuple[float, float]:
        low, high = -1.0, 1.0
        for _ in range(60):  # halves 2 to below the spacing of doubles near 1
            middle = (low + high) / 2
            if float(tango_z(gained, lost, n_items, middle, continuity=shift)) > target:
                low = middle
            else:
                high = middle
        return low, high

    return Bounds(estimate, crossing(z, continuity)[0], crossing(-z, -continuity)[1])


def clopper_pearson_interval(n_right: int, n_items: int, *, confidence: float) -> Bounds:
    """Exact bounds of one proportion: each misses the true share with at most 1 - confidence, at any n.

    >>> round(clopper_pearson_interval(96, 96, confidence=0.95).lower, 4)
    0.9693

    Raises:
        ValueError: counts that cannot be.

    Source: Clopper and Pearson (1934), Biometrika 26:404-413, as quantiles of beta distributions.
    """
    from scipy.special import betaincinv

    if n_items < 1 or not 0 <= n_right <= n_items:
        raise ValueError(f"impossible counts: {n_right} right of {n_items} items")
    n_wrong = n_items - n_right
    lower = float(betaincinv(n_right, n_wrong + 1, 1 - confidence)) if n_right else 0.0
    upper = float(betaincinv(n_right + 1, n_wrong, confidence)) if n_wrong else 1.0
    return Bounds(n_right / n_items, lower, upper)
