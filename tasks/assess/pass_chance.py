"""What a comparison does: how often candidates of a given true gain meet it, with the present number of items.

Exact for right and wrong answers: the number of items on which two models differ is binomial, and so is the part of
them that is won; `tasks/assess/contract.py` decides each pair of counts. Numbers only: a verdict shows them, `plan`
before a training too, and `init` chooses mode and margin by them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from schemas.gates import ChangeThreshold
from schemas.verdicts import Passes
from tasks.assess.compare import z_value
from tasks.assess.contract import anchor_outcome, change_outcome, least_gain

SHOWN_GAINS = (0.0, -0.02, 0.03)
"""True gains of the candidates of which a verdict and a plan speak, in the metric's unit."""
_SPREAD = 6.5
"""Standard deviations of the number of differing items that are summed over."""


@dataclass(frozen=True)
class Comparison:
    """A rule that compares, with what decides how sharp it is."""

    change: ChangeThreshold
    n_items: int
    variance: float
    """Of one item's difference; of right and wrong answers the share of items on which the two differ."""
    paired: bool
    """The differences are those of right and wrong answers, each item counting for itself."""
    alpha: float
    """Error probability of the rule."""


def passes_of(rule: Comparison, *, in_points: bool) -> Passes:
    """Return how often the rule passes candidates of `SHOWN_GAINS`.

    Args:
        in_points: The metric is a share.
    """
    share = f"{100 * rule.variance:.3g} % of them right in one model alone"
    return Passes(
        gains=SHOWN_GAINS,
        chances=pass_chances(rule, SHOWN_GAINS),
        basis=f"{rule.n_items:,} items, {share if rule.paired else f'spread {rule.variance**0.5:.3g}'}",
        in_points=in_points,
    )


def pass_chances(rule: Comparison, gains: Sequence[float]) -> tuple[float, ...]:
    """Return the chance that the rule is met by a candidate of each true gain, 0-1.

    >>> change = ChangeThreshold(mode="refresh", margin=0.02)
    >>> rule = Comparison(change, n_items=1000, variance=0.1, paired=True, alpha=0.05)
    >>> [round(chance, 3) for chance in pass_chances(rule, (-0.02, 0.0, 0.03))]
    [0.001, 0.16, 0.979]

    Continuous metrics and items in clusters by the normal approximation.
    """
    return tuple(_exact(rule, gain) if rule.paired else _approximate(rule, gain) for gain in gains)


def _exact(rule: Comparison, gain: float) -> float:
    from scipy.special import betainc, gammaln

    n, share = rule.n_items, min(1.0, max(rule.variance, abs(gain), 1e-9))
    spread = _SPREAD * math.sqrt(n * share * (1 - share)) + _SPREAD
    differing = np.arange(max(0, int(n * share - spread)), min(n, int(n * share + spread)) + 1, dtype=np.float64)
    won = np.arange(differing[-1] + 1)[:, None]
    lost = np.maximum(differing - won, 0)
    change, alpha = rule.change, rule.alpha
    if change.mode == "no_worse":
        met = anchor_outcome(won, lost, n, margin=change.margin, alpha=alpha).met
    else:
        met = change_outcome(won, lost, n, margin=change.margin, alpha=alpha, min_gain=change.least_gain).met
    # More won of as many differing items is never less evidence, so that the fewest that are enough decide.
    met &= won <= differing
    fewest = np.where(met.any(axis=0), met.argmax(axis=0), differing + 1)
    wins = min(1.0, max(0.0, (share + gain) / (2 * share)))
    tail = np.where(fewest > 0, betainc(np.maximum(fewest, 1.0), np.maximum(differing - fewest, 0) + 1, wins), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = gammaln(n + 1) - gammaln(differing + 1) - gammaln(n - differing + 1)
        log_p += differing * math.log(share) + (n - differing) * (math.log1p(-share) if share < 1 else 0.0)
    return float((np.exp(log_p) * np.where(fewest > differing, 0.0, tail)).sum())


def _approximate(rule: Comparison, gain: float) -> float:
    error = math.sqrt(rule.variance / rule.n_items)
    needed = z_value(1 - rule.alpha) * error - rule.change.margin
    if rule.change.mode != "no_worse":
        needed = max(needed, float(least_gain(error, rule.change.least_gain)), 0.0)
    return 1 - NormalDist().cdf((needed - gain) / error) if error else float(gain > needed)
