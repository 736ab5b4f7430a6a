"""The core of the gate: counts in, verdicts out, for one candidate or thousands at a time.

Every function broadcasts over leading axes, so that `benchmarks/gates` judges simulated candidates with the same code
as `tasks/assess/judge.py` and `gate.py` a real one.

Each rule has two answers, each with its own error probability: whether it is *met* at the confidence, and how
improbable the data are if it is not violated (`p_harm`). All rules must be met, so PROMOTE needs no correction for
their number (intersection-union). A single violated one blocks, so the p-values of one gate are one Holm family.
Comparisons are written so that NaN is false: it is neither met nor kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.gates import MIN_GAIN
from tasks.assess.compare import CONTINUITY, HARM_CONTINUITY, tango_z, z_value

if TYPE_CHECKING:
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

PROMOTE, HOLD, BLOCK = 0, 1, 2
"""Codes of the verdicts, from best to worst."""
PRIOR_SPREAD = 0.3
"""How much slices differ in their gains, in standard deviations of one item's gain: 9 points at discordance 10 %."""
PRIOR_LOSS = 0.15
"""The loss of a slice that matters, in the same unit: 5 points at discordance 10 %."""


@dataclass(frozen=True)
class RuleOutcome:
    """Both answers for one rule; arrays of one shape."""

    met: Bools
    p_harm: Floats


def change_outcome(
    gained: ArrayLike, lost: ArrayLike, n_items: ArrayLike, *, margin: float, alpha: float, min_gain: float | None = 0.0
) -> RuleOutcome:
    """A paired comparison of right and wrong answers: improve with margin 0, refresh with a larger one.

    Met: the loss is below the margin at the confidence, and the difference is above 0 and at least `min_gain`. Harm:
    the true difference is below 0, whatever the margin.

    Args:
        gained: Items that only the candidate got right.
        lost: Items that only the reference got right.
        min_gain: Least difference of the shares that was measured; None as in `least_gain`.
    """
    sure = tango_z(gained, lost, n_items, -margin, continuity=CONTINUITY) > z_value(1 - alpha)
    won, worse, n = (np.asarray(each, np.float64) for each in (gained, lost, n_items))
    # A thousandth of an item, so that 10 of 1,000 are a gain of 0.01 whatever the rounding.
    enough = (won > worse) & (won - worse >= least_gain(np.sqrt(won + worse) / n, min_gain) * n - 1e-3)
    return RuleOutcome(sure & enough, _p_below(gained, lost, n_items, 0.0))


def least_gain(error: ArrayLike, min_gain: float | None) -> Floats:
    """The gain that must be measured: a fixed one, or `MIN_GAIN` or one standard error, whichever is more.

    >>> least_gain([0.02, 0.004], None).tolist(), least_gain([0.02, 0.004], 0.03).tolist()
    ([0.02, 0.01], [0.03, 0.03])

    Args:
        error: Standard error of the gain.
    """
    one = np.asarray(error, np.float64)
    return np.maximum(MIN_GAIN, one) if min_gain is None else np.full_like(one, min_gain)


def anchor_outcome(
    gained: ArrayLike, lost: ArrayLike, n_items: ArrayLike, *, margin: float, alpha: float
) -> RuleOutcome:
    """Non-inferiority to a fixed model. Harm: worse than it by more than the margin."""
    sure = tango_z(gained, lost, n_items, -margin, continuity=CONTINUITY) > z_value(1 - alpha)
    return RuleOutcome(sure, _p_below(gained, lost, n_items, -margin, continuity=HARM_CONTINUITY))


def guard_outcome(gained: ArrayLike, lost: ArrayLike, n_items: ArrayLike) -> RuleOutcome:
    """A guard against harm: met unless Holm's procedure rejects it (see `settle`)."""
    return kept_unless_rejected(_p_below(gained, lost, n_items, 0.0))


def loss_chances(gains: ArrayLike, variances: ArrayLike, n_items: ArrayLike) -> tuple[Floats, Floats]:
    """How probable it is that each slice of a column (last axis) really loses, judged by its gain and the others'.

    A slice of 50 items can hardly show a loss of 15 points among 20 tests, however probable it is. Its gain is
    drawn towards that of all slices, the more the fewer items it has; what then remains is the chance of a loss of more
    than `PRIOR_LOSS`.

    Args:
        gains: Mean gain of the items of each slice.
        variances: Of one item's gain; the larger one of the slice's own and that of all slices counts.
        n_items: Items of each slice, at least one.

    Returns:
        The chances, 0-1, shaped as `gains`, and the loss that they are about, one per column.

    >>> chance, loss = loss_chances([0.04] * 5 + [-0.1], [0.1] * 6, [100] * 6)
    >>> chance.round(2).tolist(), loss.round(3).tolist()
    ([0.0, 0.0, 0.0, 0.0, 0.0, 0.91], 0.047)

    Source: the normal-normal model of empirical Bayes, Efron and Morris (1975), JASA 70:311-319, but with a fixed
    spread of the slices: estimated from few of them it is often 0.
    """
    from scipy.special import ndtr

    gain, own, n = np.broadcast_arrays(*(np.asarray(each, np.float64) for each in (gains, variances, n_items)))
    total = n.sum(axis=-1, keepdims=True)
    mean, pooled = ((each * n).sum(axis=-1, keepdims=True) / total for each in (gain, own))
    error, prior, loss = np.maximum(own, pooled) / n, PRIOR_SPREAD**2 * pooled, PRIOR_LOSS * np.sqrt(pooled)
    share = prior / np.where(prior + error > 0, prior + error, 1.0)
    spread = np.sqrt(share * error)
    chance = ndtr((-loss - mean - share * (gain - mean)) / np.where(spread > 0, spread, np.inf))
    return np.where(spread > 0, chance, 0.0), loss[..., 0]


def held_from(n_slices: int) -> float:
    """The chance of a loss from which a slice holds the candidate: with more than 20 slices a higher one, so that
    chance holds as few candidates as with 20.

    >>> held_from(7), held_from(40)
    (0.75, 0.875)
    """
    return 1 - 0.25 * min(1.0, 20 / max(1, n_slices))


def kept_unless_rejected(p_harm: ArrayLike) -> RuleOutcome:
    """A guard with this p-value; not met if that is not a probability."""
    p = np.asarray(p_harm, np.float64)
    return RuleOutcome((p >= 0) & (p <= 1), p)


def share_outcome(n_right: ArrayLike, n_items: ArrayLike, *, limit: float, alpha: float) -> RuleOutcome:
    """The share of right answers against an absolute limit: exact, as Clopper-Pearson bounds."""
    right, n = np.asarray(n_right, np.float64), np.asarray(n_items, np.float64)
    met = _at_least(right, n, limit) <= alpha if limit > 0 else right >= 0
    return RuleOutcome(met, _at_least(n - right, n, 1 - limit) if limit <= 1 else np.zeros_like(right))


def sign_p(n_better: ArrayLike, n_worse: ArrayLike) -> Floats:
    """p-value of "at least as many items get better as get worse", exact at any number; equal ones are left out.

    >>> round(float(sign_p(0, 5)), 5)
    0.03125

    Source: the sign test, Conover (1999), Practical Nonparametric Statistics, section 3.4.
    """
    better, worse = np.asarray(n_better, np.float64), np.asarray(n_worse, np.float64)
    return _at_least(worse, better + worse, 0.5)


def least_p(n_differing: ArrayLike, n_items: ArrayLike) -> Floats:
    """The smallest p-value of harm that so many differing items can give: that of losing all of them."""
    return _p_below(np.zeros_like(np.asarray(n_differing, np.float64)), n_differing, n_items, 0.0)


def testable(p_least: ArrayLike, *, alpha: float) -> Bools:
    """Which hypotheses of each family (last axis) can be rejected at all; the others need no share of alpha.

    A slice of three differing items cannot show harm among 80 tests, however they turned out. How many items differ
    says nothing about the direction, so that leaving such slices out keeps the error probability of the others.

    >>> testable([0.0, 0.001, 0.125, 0.5], alpha=0.05).tolist()
    [True, True, False, False]

    Source: Tarone (1990), Biometrics 46:515-522.
    """
    p = np.asarray(p_least, np.float64)
    ordered = np.sort(np.where(np.isnan(p), np.inf, p), axis=-1)
    sizes = np.arange(1, p.shape[-1] + 1)
    # The k-th smallest decides whether more than k - 1 can be rejected at alpha / (k - 1), from k = 2 on.
    too_many = ordered[..., 1:] <= alpha / sizes[:-1]
    first = np.where(too_many.all(axis=-1), p.shape[-1], 1 + np.argmin(too_many, axis=-1)) if p.shape[-1] > 1 else 1
    return np.asarray(p <= (alpha / np.asarray(first, np.float64))[..., None])


def holm(p_values: ArrayLike, *, alpha: float, among: ArrayLike = True) -> Bools:
    """Which hypotheses of each family (last axis) are rejected; a true one is with probability at most alpha.

    Args:
        among: The hypotheses that are tested at all; the others are not rejected and do not count.

    >>> holm([0.001, 0.03, 0.04], alpha=0.05).tolist()
    [True, False, False]
    >>> holm([0.03, 0.02], alpha=0.05, among=[True, False]).tolist()
    [True, False]

    Source: Holm (1979), Scandinavian Journal of Statistics 6:65-70.
    """
    p = np.asarray(p_values, np.float64)
    tested = np.broadcast_to(np.asarray(among, np.bool_), p.shape)
    order = np.argsort(np.where(tested, p, np.inf), axis=-1, kind="stable")
    left = tested.sum(axis=-1, keepdims=True) - np.arange(p.shape[-1])
    small = (np.take_along_axis(p, order, axis=-1) <= alpha / np.maximum(left, 1)) & (left > 0)
    rejected = np.zeros(p.shape, np.bool_)
    np.put_along_axis(rejected, order, np.logical_and.accumulate(small, axis=-1), axis=-1)
    return rejected


def settle(met: Bools, p_harm: Floats, *, alpha: float, p_least: ArrayLike = 0.0) -> NDArray[np.int8]:
    """The verdict on each rule of a gate (last axis): BLOCK if Holm's procedure shows harm, else PROMOTE if met.

    Args:
        p_least: The smallest p-value that each test could have given (`least_p`); those that cannot be rejected leave
            their share of alpha to the others (`testable`).

    >>> import numpy as np
    >>> settle(np.array([True, False, False]), np.array([0.9, 0.4, 0.001]), alpha=0.05).tolist()
    [0, 1, 2]
    """
    among = testable(np.broadcast_to(np.asarray(p_least, np.float64), np.shape(p_harm)), alpha=alpha)
    codes = np.where(holm(p_harm, alpha=alpha, among=among), BLOCK, np.where(met, PROMOTE, HOLD))
    return codes.astype(np.int8)


def _p_below(
    gained: ArrayLike, lost: ArrayLike, n_items: ArrayLike, limit: float, *, continuity: float = CONTINUITY
) -> Floats:
    """p-value of a true difference of at least `limit` against one below it."""
    from scipy.special import ndtr

    p: Any = ndtr(tango_z(gained, lost, n_items, limit, continuity=-continuity))
    return p  # type: ignore[no-any-return]


def _at_least(count: Floats, n_items: Floats, share: float) -> Floats:
    """Probability of `count` or more successes in n_items trials of probability `share`."""
    from scipy.special import betainc

    inside = min(max(share, 0.0), 1.0)
    chance: Floats = np.where(count > 0, betainc(np.maximum(count, 1.0), n_items - count + 1, inside), 1.0)
    return chance
