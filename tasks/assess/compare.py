"""Confidence bounds and sample sizes for comparisons on the same held-out items: numbers in, numbers out.

Knows nothing of metrics, arms, files or verdicts; `tasks/assess/gate.py` asks. Three procedures, one per kind of score:

- right/wrong of two models on the same items: Tango's score interval. A percentile bootstrap passes 29 % of the models
  that sit exactly at a 2-point margin at n=20, because few or no items differ; this interval stays below 5.6 %.
- share of right answers of one model: Clopper-Pearson. Wilson's interval lets 5.8 % through at n=100 and limit 0.9,
  and a limit that says "at 95 % confidence" must mean at most 5 %.
- continuous scores: bootstrap-t, which corrects for skew. On 200 items with rare catastrophic answers it passes 5.8 %
  where the percentile bootstrap passes 10 % and the paired t-test 11 %.

Every bound is one-sided at its own confidence: `lower` is below the true value with that probability, and so is
`upper` above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy costs a tenth of a second, and the flows import this file
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


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


def tango_z(gained: ArrayLike, lost: ArrayLike, n_items: ArrayLike, difference: ArrayLike) -> Floats:
    """Score statistic of the hypothesis that the share gained minus the share lost is `difference`; broadcasts.

    Falls as `difference` grows; positive where the data speak for more than `difference`. 0 where the hypothesis
    leaves no variance.

    Args:
        gained: Items that only the candidate got right.
        lost: Items that only the reference got right.
        n_items: All paired items.
        difference: Hypothetical difference of the shares, -1 to 1.

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
    return np.where(possible, (b - c - n * delta) / np.sqrt(np.where(possible, variance, 1.0)), 0.0)


def tango_interval(gained: int, lost: int, n_items: int, *, confidence: float) -> Bounds:
    """Bounds of the difference of two paired proportions, by inverting `tango_z`.

    With no item that differs the bounds are not 0 but `z**2 / (n + z**2)` away from it: few items prove little.

    >>> bounds = tango_interval(12, 4, 200, confidence=0.95)
    >>> round(bounds.estimate, 3), round(bounds.lower, 3), round(bounds.upper, 3)
    (0.04, 0.008, 0.077)

    Raises:
        ValueError: counts that cannot be (negative, or more items differ than there are).
    """
    if n_items < 1 or min(gained, lost) < 0 or gained + lost > n_items:
        raise ValueError(f"impossible counts: {gained} gained and {lost} lost of {n_items} items")
    estimate = (gained - lost) / n_items
    z = z_value(confidence)

    def crossing(target: float) -> tuple[float, float]:
        low, high = -1.0, 1.0
        for _ in range(60):  # halves 2 to below the spacing of doubles near 1
            middle = (low + high) / 2
            if float(tango_z(gained, lost, n_items, middle)) > target:
                low = middle
            else:
                high = middle
        return low, high

    return Bounds(estimate, crossing(z)[0], crossing(-z)[1])


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


def bootstrap_t_interval(values: Floats, *, confidence: float, seed: int = 0, n_resamples: int = 4000) -> Bounds:
    """Bounds of the mean of continuous values (paired differences, or the scores of one model).

    Resamples without spread count as infinitely far out, so that they widen the interval. The caller checks that
    there are items enough (200) and that enough of them differ: with fewer the bounds are too narrow.

    Args:
        values: Finite values, shape `(n_items,)`, in a fixed order: the same order and seed give the same bounds.

    Raises:
        ValueError: fewer than two values, not finite, or all equal.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 12.5.
    """
    import numpy as np

    n = len(values)
    if n < 2 or not bool(np.isfinite(values).all()) or not float(values.std()) > 0:
        raise ValueError("bootstrap-t needs at least two finite values that differ")
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n)
    centred = values - mean
    generator = np.random.default_rng(seed)
    rows = max(1, 2_000_000 // n)  # 16 MB of values at a time
    t = np.empty(n_resamples)
    for start in range(0, n_resamples, rows):
        stop = min(start + rows, n_resamples)
        sample = centred[generator.integers(0, n, (stop - start, n))]
        shift, spread = sample.mean(axis=1), sample.std(axis=1, ddof=1) / math.sqrt(n)
        flat = ~(spread > 1e-9 * error)
        t[start:stop] = np.where(flat, np.copysign(np.inf, shift), shift / np.where(flat, 1.0, spread))
    ordered = np.sort(t)
    above = ordered[min(n_resamples - 1, math.ceil(confidence * n_resamples) - 1)]
    below = ordered[max(0, n_resamples - math.ceil(confidence * n_resamples))]
    return Bounds(mean, mean - float(above) * error, mean - float(below) * error)


def items_needed(
    distance: float, *, sd_null: float, sd_true: float, confidence: float, power: float = 0.8
) -> int | None:
    """Items after which a one-sided test finds `distance` with the given power; null where there is nothing to find.

    Args:
        distance: True value minus the limit of the test, above 0.
        sd_null: Standard deviation of one item's value when the value sits at the limit.
        sd_true: Standard deviation of one item's value as it really is.

    Source: the usual normal approximation, n = ((z_confidence * sd_null + z_power * sd_true) / distance)**2.
    """
    if not distance > 0:
        return None
    return max(1, math.ceil(((z_value(confidence) * sd_null + z_value(power) * sd_true) / distance) ** 2))


def paired_items_needed(
    difference: float, *, discordance: float, confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """Items to find a difference of two paired proportions, from the share of items where the two disagree.

    >>> paired_items_needed(0.05, discordance=0.1)
    246

    Source: Connor (1987), Biometrics 43:207-211.
    """
    discordance = max(discordance, abs(difference))
    return items_needed(
        difference,
        sd_null=math.sqrt(discordance),
        sd_true=math.sqrt(discordance - difference**2),
        confidence=confidence,
        power=power,
    )
