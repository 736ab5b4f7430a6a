"""Confidence bounds for the scores of two models on the same held-out items: numbers in, numbers out.

- Right or wrong, two models on the same items: Tango's score interval, with a continuity correction of a quarter item.
  A percentile bootstrap passes 29 % of the models exactly at a 2-point margin at n=20, because few or no items differ.
  Without the correction Tango passes up to 6.8 % (n=42, margin 10 points), with it never more than 5.0 % (every n from
  20 to 100 and up to 2000, discordance 2 to 40 %, margins 0 to 10 points, by exact enumeration).
- Share of right answers of one model: Clopper-Pearson. Wilson's interval passes 5.8 % at n=100 and limit 0.9, but
  "at 95 % confidence" must mean at most 5 %.
- Mean of continuous scores: bootstrap-t over items or customers. It corrects for skew: on 200 items with rare
  catastrophic answers it passes 5.8 % of the candidates at the limit; the percentile bootstrap passes 10 %, the paired
  t-test 11 %. If items belong together, it draws whole clusters: tickets of one customer resemble each other, and
  drawing tickets would pass 10 to 13 %. Beyond the resolution of the draws (one in 4,001) a bound on the tail takes
  over, so that a collapse is shown however small the error probability of one test is.

Every bound is one-sided at its own confidence: `lower` is below the true value with that probability, and so is
`upper` above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:  # numpy costs a tenth of a second, and the flows import this file
    Floats = NDArray[np.float64]

CONTINUITY = 0.25
"""Items by which a difference is moved towards the hypothesis."""
HARM_CONTINUITY = 1.0
"""The same where a loss beyond a margin is to be shown, which is in the tail of few lost items: with a quarter of an
item 7.6 % of the candidates at the margin are blocked (n=360, margin 1 point), with this at most 4.6 % (n 60 to 2,000,
margins 0.3 to 10 points), and also where Holm halves the error probability."""
N_RESAMPLES = 4000
_CENTRES = 32
"""Grid points of a tail bound; twice as many change it by less than 2 %."""


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

    Falls as `difference` grows; positive if the data suggest more than `difference`. 0 if the hypothesis leaves no
    variance.

    Args:
        gained: Items that only the candidate got right.
        lost: Items that only the reference got right.
        n_items: All paired items.
        difference: Hypothetical difference of the shares, -1 to 1.
        continuity: Items subtracted from the evidence for more than `difference`; negative adds them.

    Source: Tango (1998), Statistics in Medicine 17:891-908, with the closed form of the restricted maximum
    likelihood estimate of the share lost.
    """
    b, c = np.asarray(gained, np.float64), np.asarray(lost, np.float64)
    n, delta = np.asarray(n_items, np.float64), np.asarray(difference, np.float64)
    half = -b - c + (2 * n - b + c) * delta
    rest = -c * delta * (1 - delta)
    share_lost = (np.sqrt(np.maximum(half**2 - 8 * n * rest, 0.0)) - half) / (4 * n)
    variance = n * (2 * share_lost + delta * (1 - delta))
    possible = variance > 0
    return np.where(possible, (b - c - n * delta - continuity) / np.sqrt(np.where(possible, variance, 1.0)), 0.0)


def tango_interval(
    gained: float,
    lost: float,
    n_items: float,
    *,
    confidence: float,
    continuity: float = CONTINUITY,
    harm_continuity: float | None = None,
) -> Bounds:
    """Bounds of the difference of two paired proportions, by inverting `tango_z`.

    If no item differs, the bounds are at least `z**2 / (n + z**2)` from 0: few items prove little. With continuity 0
    the interval is Tango's own.

    >>> bounds = tango_interval(12, 4, 200, confidence=0.95, continuity=0)
    >>> round(bounds.estimate, 3), round(bounds.lower, 3), round(bounds.upper, 3)
    (0.04, 0.008, 0.077)

    Args:
        harm_continuity: That of the upper bound, which shows harm; None is the same.

    Raises:
        ValueError: impossible counts (negative, or more items differ than exist).
    """
    if n_items < 1 or min(gained, lost) < 0 or gained + lost > n_items * (1 + 1e-12):
        raise ValueError(f"impossible counts: {gained} gained and {lost} lost of {n_items} items")
    estimate = (gained - lost) / n_items
    z = z_value(confidence)

    def crossing(target: float, shift: float) -> tuple[float, float]:
        low, high = -1.0, 1.0
        for _ in range(10):  # a 64th each: 2 to the spacing of doubles near 1
            points = np.linspace(low, high, 65)
            above = tango_z(gained, lost, n_items, points[1:-1], continuity=shift) > target
            at = int(above.sum())  # it falls, so that these come first
            low, high = float(points[at]), float(points[at + 1])
        return low, high

    beyond = continuity if harm_continuity is None else harm_continuity
    return Bounds(estimate, crossing(z, continuity)[0], crossing(-z, -beyond)[1])


def clopper_pearson_interval(n_right: float, n_items: float, *, confidence: float) -> Bounds:
    """Exact bounds of one proportion: each misses the true share with at most 1 - confidence, at any n.

    >>> round(clopper_pearson_interval(96, 96, confidence=0.95).lower, 4)
    0.9693

    Raises:
        ValueError: impossible counts.

    Source: Clopper and Pearson (1934), Biometrika 26:404-413, as quantiles of beta distributions.
    """
    from scipy.special import betaincinv

    if n_items < 1 or not 0 <= n_right <= n_items:
        raise ValueError(f"impossible counts: {n_right} right of {n_items} items")
    n_wrong = n_items - n_right
    lower = float(betaincinv(n_right, n_wrong + 1, 1 - confidence)) if n_right > 0 else 0.0
    upper = float(betaincinv(n_right + 1, n_wrong, confidence)) if n_wrong > 0 else 1.0
    return Bounds(n_right / n_items, lower, upper)


@dataclass(frozen=True, eq=False)
class MeanEstimate:
    """A mean, its standard error, and the sorted bootstrap distribution of t = (mean* - mean) / error*."""

    mean: float
    error: float
    t: Floats
    units: Floats
    """What each item or cluster adds to the sum of the centred values, shape `(n_units,)`."""

    @property
    def n_effective(self) -> float:
        """Items or clusters that carry the spread."""
        return n_effective(self.units)

    def bounds(self, *, confidence: float) -> Bounds:
        """One-sided bounds of the true mean, each at this confidence."""
        n = len(self.t)
        if (1 - confidence) * (n + 1) < 1:
            above, below = (tail_quantile(units, 1 - confidence) for units in (self.units, -self.units))
            above, below = max(above, float(self.t[-1])), max(below, -float(self.t[0]))
            return Bounds(self.mean, self.mean - above * self.error, self.mean + below * self.error)
        above = float(self.t[min(n - 1, math.ceil(confidence * n) - 1)])
        below = float(self.t[max(0, n - math.ceil(confidence * n))])
        return Bounds(self.mean, self.mean - above * self.error, self.mean - below * self.error)

    def p_below(self, limit: float) -> float:
        """p-value of a true mean of at least `limit` against one below it."""
        t = (self.mean - limit) / self.error
        seen = int(np.searchsorted(self.t, t, side="right"))
        drawn = (seen + 1) / (len(self.t) + 1)
        return drawn if seen else min(drawn, tail_bound(-self.units, -t))


def n_effective(units: Floats) -> float:
    """The number of centred values that carry their spread: k if k of equal size differ from 0, else less.

    It is their number divided by their kurtosis. All equal to 0 gives 0.

    >>> import numpy as np
    >>> n_effective(np.array([1.0, -1.0, 1.0, -1.0, 0.0, 0.0]))
    4.0
    """
    squares = units**2
    fourth = float((squares**2).sum())
    return float(squares.sum()) ** 2 / fourth if fourth > 0 else 0.0


def tail_bound(units: Floats, t: float) -> float:
    """Bound on the probability that resampled units have a studentised sum of at least `t`.

    Five to ten times the probability itself between 1e-2 and 1e-5, where both can be computed: it errs on the side
    that shows nothing.

    Args:
        units: Centred values, shape `(n_units,)`; not all equal.

    Source: Shao (1997), Annals of Probability 25:285-328, theorem 1.1: with V the root of the sum of squares,
    P(S >= x sqrt(n) V) has the exponential rate sup_c inf_s E exp(s (c X - x (X**2 + c**2) / 2)).
    """
    if not t > 0:
        return 1.0
    n = len(units)
    x = units / math.sqrt(float((units**2).mean()))
    share = t / math.sqrt(n - 1 + t * t)  # of the largest value that a sum divided by V can have
    centres = np.geomspace(0.02, 20.0, _CENTRES)
    for _ in range(2):
        rates = _log_rates(x, share, centres)
        best = int(rates.argmax())
        centres = np.linspace(centres[max(0, best - 1)], centres[min(len(centres) - 1, best + 1)], _CENTRES // 2)
    return math.exp(max(-700.0, min(0.0, n * float(rates.max()))))


def _log_rates(x: Floats, share: float, centres: Floats) -> Floats:
    """Logarithm of inf_s E exp(s g), g = c x - share (x**2 + c**2) / 2, for each c of `centres`."""
    g = centres[:, None] * x - share * (x**2 + centres[:, None] ** 2) / 2
    top = g.max(axis=1, keepdims=True)
    reachable, mean = top[:, 0] > 0, g.mean(axis=1)
    # At most 1, so that s can be bracketed alike for every c.
    g = np.where(reachable[:, None], g / np.where(reachable[:, None], top, 1.0), 0.0)
    low, high = np.zeros(len(centres)), np.full(len(centres), 4.0 * math.log(len(x)) + 40.0)
    for _ in range(24):  # the slope of a convex function changes its sign at the infimum
        middle = (low + high) / 2
        slope = (np.exp(middle[:, None] * (g - 1)) * g).sum(axis=1)
        low, high = np.where(slope < 0, middle, low), np.where(slope < 0, high, middle)
    rates = high + np.log(np.exp(high[:, None] * (g - 1)).mean(axis=1))
    return np.where(~reachable, -np.inf, np.where(mean >= 0, 0.0, rates))


def tail_quantile(units: Floats, probability: float) -> float:
    """The t whose `tail_bound` is this probability.

    Raises:
        ValueError: not a probability between 0 and 1.
    """
    if not 0 < probability < 1:
        raise ValueError(f"a bound needs an error probability between 0 and 1, got {probability}")
    low, high = 0.0, 4.0
    while tail_bound(units, high) > probability and high < 1e6:
        low, high = high, 2 * high
    for _ in range(12):  # to a thousandth of the last step
        middle = (low + high) / 2
        low, high = (middle, high) if tail_bound(units, middle) > probability else (low, middle)
    return high


def estimate_mean(
    values: Floats, *, clusters: NDArray[np.int64] | None = None, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> MeanEstimate:
    """Mean over items, with the uncertainty of resampling items or clusters of items.

    Resamples without spread count as infinitely far out, which widens the interval. The caller checks that there are
    enough items (320) or clusters (40) and that enough of them carry the spread: with fewer, bounds are too narrow.

    Args:
        values: Finite values, shape `(n_items,)`, in a fixed order: the same order and seed give the same result.
        clusters: Cluster of each item, numbered from 0 without gaps; None draws items.

    Raises:
        ValueError: fewer than two values or clusters, not finite, or all equal.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 12.5; the error of a mean over
    clusters of unequal size is that of a ratio, Cochran (1977), Sampling Techniques, section 9A.
    """
    n = len(values)
    if n < 2 or not bool(np.isfinite(values).all()) or not float(values.std()) > 0:
        raise ValueError("bootstrap-t needs at least two finite values that differ")
    mean = float(values.mean())
    belongs = np.arange(n) if clusters is None else clusters
    sums, sizes = np.bincount(belongs, values - mean).astype(np.float64), np.bincount(belongs, np.ones(n))
    units = len(sums)
    error = math.sqrt(units / max(1, units - 1) * float((sums**2).sum())) / n
    if units < 2 or not error > 1e-12 * max(1.0, abs(mean)):
        raise ValueError("bootstrap-t needs at least two clusters that differ")
    generator = np.random.default_rng(seed)
    rows = max(1, 2_000_000 // units)  # 16 MB of values at a time
    t = np.empty(n_resamples)
    for start in range(0, n_resamples, rows):
        stop = min(start + rows, n_resamples)
        drawn = generator.integers(0, units, (stop - start, units))
        sample, size = sums[drawn], sizes[drawn]
        total = size.sum(axis=1)
        shift = sample.sum(axis=1) / total
        around = sample - shift[:, None] * size
        spread = np.sqrt(units / (units - 1) * (around**2).sum(axis=1)) / total
        flat = ~(spread > 1e-9 * error)
        t[start:stop] = np.where(flat, np.copysign(np.inf, shift), shift / np.where(flat, 1.0, spread))
    return MeanEstimate(mean, error, np.sort(t), sums)
