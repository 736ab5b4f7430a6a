"""The error probability of each look at a candidate: numbers in, numbers out.

A look is one held-out set on which a candidate is judged, or the same one by rules that were edited since. Each spends
a part of the error probability that is left to it by a spending function, so that all looks together keep it. Knows
nothing of scores. Used by `tasks/assess/gate.py`, by the plan before a training, and where the ledger is read.

Looks at a growing set of items are correlated: the first 500 of 1,000 items are half of the evidence of both looks.
The levels use that if each set holds the one before; three looks then cost 3 % more items than one, where a third of
the error probability each costs 31 %. Looks at other items share nothing, and get what the function spends, no more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from schemas.gates import GatesSpec
from schemas.verdicts import Terms, UsedBudget

LEAST_LEVEL = 1e-12
"""Least error probability of a look. The first of 20 by O'Brien and Fleming would have 1e-17: its confidence is 1 in
floating point, which has no bound."""
_GRID = 801
"""Points of a numerical integral; twice as many change no level by 1e-5."""


@dataclass(frozen=True)
class Levels:
    """Error probabilities of one look."""

    met: float
    """Of each rule that must be met."""
    harm: float
    """Of all tests that may block, together. Never more than `met`."""


def levels_of(gates: GatesSpec, used: UsedBudget, *, n_items: int) -> Levels:
    """The levels of the next look; beyond the last, those of the last.

    Args:
        n_items: Held-out items of this look.
    """
    most, spend = gates.looks.max, gates.looks.spend
    number = min(used.looks + 1, most)
    increments = [_increment(gates.alpha, each + 1, most, spend) for each in range(number)]
    if used.spent and not is_spent(gates, used):
        increments = [*used.spent, min(increments[-1], gates.alpha - sum(used.spent))]
    sizes = (*used.nested, n_items)
    nested = len(sizes) == number and all(a < b for a, b in pairwise(sizes))
    met = nested_level(increments, sizes) if nested and number > 1 else increments[-1]
    harm = max(increments[-1], LEAST_LEVEL)
    return Levels(met=max(met, harm), harm=harm)


def is_spent(gates: GatesSpec, used: UsedBudget) -> bool:
    """Whether earlier looks at the candidate have spent all: other gates may have declared fewer looks."""
    return gates.alpha - sum(used.spent) < LEAST_LEVEL


def spent_by(looks: Sequence[Sequence[Terms]]) -> tuple[float, ...]:
    """The error probability that each of a candidate's looks has spent, at most what was left.

    >>> once = Terms(rules="a", alpha=0.05, looks=1, spend="equal")
    >>> thrice = once.model_copy(update={"looks": 3})
    >>> spent_by([[once], [thrice]])
    (0.05, 0.0)
    >>> spent_by([[thrice, once], [thrice]])
    (0.05, 0.0)

    Args:
        looks: The terms of each verdict that was reached at each look: the largest of their shares was spent.
    """
    found: list[float] = []
    for number, each in enumerate(looks, start=1):
        found.append(max(_spent(terms, number, before=sum(found)) for terms in each))
    return tuple(found)


def _spent(terms: Terms, number: int, *, before: float) -> float:
    share = _increment(terms.alpha, number, terms.looks, terms.spend) if number <= terms.looks else 0.0
    return max(0.0, min(share, terms.alpha - before))


def _increment(alpha: float, number: int, most: int, spend: str) -> float:
    """What the look of this number spends."""
    return spending(alpha, number / most, function=spend) - spending(alpha, (number - 1) / most, function=spend)


def last_levels(gates: GatesSpec) -> Levels:
    """The levels of the last look if each look adds as many items: what a plan has to count with."""
    most = gates.looks.max
    return levels_of(gates, UsedBudget(looks=most - 1, nested=tuple(range(1, most))), n_items=most)


def spending(alpha: float, share: float, *, function: str) -> float:
    """The part of alpha that is spent when this share of the looks is over.

    >>> [round(spending(0.05, look / 3, function="obrien_fleming"), 4) for look in (1, 2, 3)]
    [0.0007, 0.0164, 0.05]

    Source: Lan and DeMets (1983), Biometrika 70:659-663.
    """
    if share <= 0:
        return 0.0
    if function == "equal" or share >= 1:
        return alpha * min(1.0, share)
    normal = NormalDist()
    return 2 * normal.cdf(normal.inv_cdf(alpha / 2) / math.sqrt(share))


def nested_level(increments: Sequence[float], sizes: Sequence[int]) -> float:
    """The level of the last look at a growing set of items, for which the looks together spend these increments.

    >>> round(nested_level([0.05], [300]), 4)
    0.05

    Args:
        sizes: Items of each look, growing.

    Source: Armitage, McPherson and Rowe (1969), JRSS A 132:235-244; the sums over items are a random walk.
    """
    from scipy.special import ndtr

    times = np.asarray(sizes, np.float64) / sizes[-1]
    points, mass = np.zeros(1), np.ones(1)  # where the walk is, of those that no look has rejected
    before, z = 0.0, 0.0
    for time, increment in zip(times.tolist(), increments, strict=True):
        step = math.sqrt(time - before)
        low, high = -9.0 * math.sqrt(time), 9.0 * math.sqrt(time)
        for _ in range(50):
            middle = (low + high) / 2
            beyond = float((mass * ndtr((points - middle) / step)).sum())
            low, high = (middle, high) if beyond > increment else (low, middle)
        z, before = high / math.sqrt(time), time
        grid = np.linspace(-9.0 * math.sqrt(time), high, _GRID)
        edges = ndtr((grid[:, None] - points) / step) @ mass
        points, mass = (grid[1:] + grid[:-1]) / 2, np.diff(edges)
    return float(ndtr(-z))
