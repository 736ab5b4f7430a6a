"""Bootstrap-t for the mean of continuous scores, item by item or customer by customer: numbers in, numbers out.

Knows nothing of metrics, arms or verdicts; `tasks/assess/judge.py` asks. It corrects for skew: on 200 items with rare
catastrophic answers it passes 5.8 % of the candidates at the limit where the percentile bootstrap passes 10 % and the
paired t-test 11 %. Where items belong together whole clusters are drawn: tickets of one customer resemble each other,
and drawing tickets would pass 10 to 13 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.assess.compare import Bounds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.assess.compare import Floats

N_RESAMPLES = 4000


@dataclass(frozen=True, eq=False)
class MeanEstimate:
    """A mean, its standard error, and the sorted bootstrap distribution of t = (mean* - mean) / error*."""

    mean: float
    error: float
    t: Floats

    def bounds(self, *, confidence: float) -> Bounds:
        """One-sided bounds of the true mean, each at this confidence."""
        n = len(self.t)
        above = float(self.t[min(n - 1, math.ceil(confidence * n) - 1)])
        below = float(self.t[max(0, n - math.ceil(confidence * n))])
        return Bounds(self.mean, self.mean - above * self.error, self.mean - below * self.error)

    def p_below(self, limit: float) -> float:
        """p-value of a true mean of at least `limit` against one below it; never 0."""
        import numpy as np

        seen = int(np.searchsorted(self.t, (self.mean - limit) / self.error, side="right"))
        return (seen + 1) / (len(self.t) + 1)


def estimate_mean(
    values: Floats, *, clusters: NDArray[np.int64] | None = None, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> MeanEstimate:
    """Mean over items, with the uncertainty of drawing items, or clusters of items, anew.

    Resamples without spread count as infinitely far out, so that they widen the interval. The caller checks that
    there are items (200) or clusters (40) enough and that enough of them differ: with fewer, bounds are too narrow.

    Args:
        values: Finite values, shape `(n_items,)`, in a fixed order: the same order and seed give the same result.
        clusters: Cluster of each item, numbered from 0 without gaps; null draws items.

    Raises:
        ValueError: fewer than two values or clusters, not finite, or all equal.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 12.5; the error of a mean over
    clusters of unequal size is that of a ratio, Cochran (1977), Sampling Techniques, section 9A.
    """
    import numpy as np

    n = len(values)
    if n < 2 or not bool(np.isfinite(values).all()) or not float(values.std()) > 0:
        raise ValueError("bootstrap-t needs at least two finite values that differ")
    mean = float(values.mean())
    belongs = np.arange(n) if clusters is None else clusters
    sums, sizes = np.bincount(belongs, values - mean), np.bincount(belongs, np.ones(n))
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
    return MeanEstimate(mean, error, np.sort(t))
