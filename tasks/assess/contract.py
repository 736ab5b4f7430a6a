"""The core of the gate: counts in, verdicts out, for one candidate or thousands at a time.

Every function broadcasts over leading axes, so that `benchmarks/gates` judges simulated candidates with the same
code as `tasks/assess/judge.py` and `gate.py` a real one. Knows nothing of metrics, files or messages.

Each rule has two answers, each with its own error probability: whether it is *met* at the confidence, and how
improbable the data are if it is not violated (`p_harm`). All rules must be met, so PROMOTE needs no correction for
their number (intersection-union). A single violated one blocks, so the p-values of one gate are one Holm family.
Comparisons are written so that NaN is false: it is neither met nor kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.assess.compare import CONTINUITY, tango_z, z_value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

PROMOTE, HOLD, BLOCK = 0, 1, 2
"""Codes of the verdicts, from best to worst."""


@dataclass(frozen=True)
class Outcome:
    """Both answers for one rule; arrays of one shape."""

    met: Bools
    p_harm: Floats


def change_outcome(gained: ArrayLike, lost: ArrayLike, n_items: ArrayLike, *, margin: float, alpha: float) -> Outcome:
    """A paired comparison of right and wrong answers: improve with margin 0, refresh with a larger one.

    Met: the loss is below the margin at the confidence, and more items were gained than lost. Harm: the true difference
    is below 0, whatever the margin.

    Args:
        gained: Items that only the candidate got right.
        lost: Items that only the reference got right.
    """
    import numpy as np

    sure = tango_z(gained, lost, n_items, -margin, continuity=CONTINUITY) > z_value(1 - alpha)
    return Outcome(sure & (np.asarray(gained) > np.asarray(lost)), _p_below(gained, lost, n_items, 0.0))


def anchor_outcome(gained: ArrayLike, lost: ArrayLike, n_items: ArrayLike, *, margin: float, alpha: float) -> Outcome:
    """Non-inferiority to a fixed model. Harm: worse than it by more than the margin."""
    sure = tango_z(gained, lost, n_items, -margin, continuity=CONTINUITY) > z_value(1 - alpha)
    return Outcome(sure, _p_below(gained, lost, n_items, -margin))


def guard_outcome(gained: ArrayLike, lost: ArrayLike, n_items: ArrayLike) -> Outcome:
    """A guard against harm: met unless Holm's procedure rejects it (see `settle`)."""
    return kept_unless_rejected(_p_below(gained, lost, n_items, 0.0))


def kept_unless_rejected(p_harm: ArrayLike) -> Outcome:
    """A guard with this p-value; not met if that is not a probability."""
    import numpy as np

    p = np.asarray(p_harm, np.float64)
    return Outcome((p >= 0) & (p <= 1), p)


def share_outcome(n_right: ArrayLike, n_items: ArrayLike, *, limit: float, alpha: float) -> Outcome:
    """The share of right answers against an absolute limit: exact, as Clopper-Pearson bounds."""
    import numpy as np

    right, n = np.asarray(n_right, np.float64), np.asarray(n_items, np.float64)
    met = _at_least(right, n, limit) <= alpha if limit > 0 else right >= 0
    return Outcome(met, _at_least(n - right, n, 1 - limit) if limit <= 1 else np.zeros_like(right))


def sign_p(n_better: ArrayLike, n_worse: ArrayLike) -> Floats:
    """p-value of "at least as many items get better as get worse", exact at any number; equal ones are left out.

    >>> round(float(sign_p(0, 5)), 5)
    0.03125

    Source: the sign test, Conover (1999), Practical Nonparametric Statistics, section 3.4.
    """
    import numpy as np

    better, worse = np.asarray(n_better, np.float64), np.asarray(n_worse, np.float64)
    return _at_least(worse, better + worse, 0.5)


def holm(p_values: ArrayLike, *, alpha: float) -> Bools:
    """Which hypotheses of each family (last axis) are rejected; a true one is with probability at most alpha.

    >>> holm([0.001, 0.03, 0.04], alpha=0.05).tolist()
    [True, False, False]

    Source: Holm (1979), Scandinavian Journal of Statistics 6:65-70.
    """
    import numpy as np

    p = np.asarray(p_values, np.float64)
    size = p.shape[-1]
    order = np.argsort(p, axis=-1, kind="stable")
    small = np.take_along_axis(p, order, axis=-1) <= alpha / (size - np.arange(size))
    rejected = np.zeros(p.shape, np.bool_)
    np.put_along_axis(rejected, order, np.logical_and.accumulate(small, axis=-1), axis=-1)
    return rejected


def settle(met: Bools, p_harm: Floats, *, alpha: float) -> NDArray[np.int8]:
    """The verdict on each rule of a gate (last axis): BLOCK if Holm's procedure shows harm, else PROMOTE if met.

    >>> import numpy as np
    >>> settle(np.array([True, False, False]), np.array([0.9, 0.4, 0.001]), alpha=0.05).tolist()
    [0, 1, 2]
    """
    import numpy as np

    codes = np.where(holm(p_harm, alpha=alpha), BLOCK, np.where(met, PROMOTE, HOLD))
    return codes.astype(np.int8)


def _p_below(gained: ArrayLike, lost: ArrayLike, n_items: ArrayLike, limit: float) -> Floats:
    """p-value of a true difference of at least `limit` against one below it."""
    from scipy.special import ndtr

    p: Any = ndtr(tango_z(gained, lost, n_items, limit, continuity=-CONTINUITY))
    return p  # type: ignore[no-any-return]


def _at_least(count: Floats, n_items: Floats, share: float) -> Floats:
    """Probability of `count` or more successes in n_items trials of probability `share`."""
    import numpy as np
    from scipy.special import betainc

    inside = min(max(share, 0.0), 1.0)
    chance: Floats = np.where(count > 0, betainc(np.maximum(count, 1.0), n_items - count + 1, inside), 1.0)
    return chance
