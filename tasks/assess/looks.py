"""The error probability of each look at a candidate: numbers in, numbers out.

A look is one held-out set on which a candidate is judged, or the same one by rules that were edited since. Each spends
a part of the error probability that is left to it by a spending function, so that all looks together keep it.

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
    looks, number = gates.looks, min(used.looks + 1, gates.looks.max)
    earlier = tuple(_increment(gates.alpha, each + 1, looks.max, looks.spend) for each in range(number - 1))
    left = math.inf
    if used.spent and not is_spent(gates, used):
        earlier, left = used.spent, gates.alpha - sum(used.spent)
    if looks.at:
        share = number_of(n_items, at=looks.at, before=number - 1) / looks.max
        own = max(0.0, spending(gates.alpha, share, function=looks.spend) - sum(earlier))
    else:
        own = min(_increment(gates.alpha, number, looks.max, looks.spend), left)
    sizes = (*used.nested, n_items)
    nested = len(sizes) == number and all(a < b for a, b in pairwise(sizes))
    met = nested_level((*earlier, own), sizes) if nested and number > 1 else own
    harm = max(own, LEAST_LEVEL)
    return Levels(met=max(met, harm), harm=harm)


def number_of(n_items: int, *, at: Sequence[int], before: int) -> int:
    """The number of a look among those declared, which says how much of the error probability is spent by then.

    A first look with the items of the last has all of it: how many tickets there are depends on no answer.

    >>> declared = (248, 496, 744)
    >>> number_of(100, at=declared, before=0), number_of(744, at=declared, before=0)
    (1, 3)
    >>> number_of(496, at=declared, before=1), number_of(496, at=declared, before=2)
    (2, 3)

    Args:
        n_items: Held-out items of this look.
        at: Those of the declared looks.
        before: Looks at the candidate before this one, whatever their items.
    """
    return min(max(sum(size <= n_items for size in at), before + 1), len(at))


def is_spent(gates: GatesSpec, used: UsedBudget) -> bool:
    """Whether earlier looks at the candidate have spent all: other gates may have declared fewer looks."""
    return gates.alpha - sum(used.spent) < LEAST_LEVEL


def spent_by(looks: Sequence[Sequence[Terms]], sizes: Sequence[int] = ()) -> tuple[float, ...]:
    """The error probability that each of a candidate's looks has spent, at most what was left.

    >>> once = Terms(rules="a", alpha=0.05, looks=1, spend="equal")
    >>> thrice = once.model_copy(update={"looks": 3})
    >>> spent_by([[once], [thrice]])
    (0.05, 0.0)
    >>> spent_by([[thrice, once], [thrice]])
    (0.05, 0.0)
    >>> declared = thrice.model_copy(update={"at": (248, 496, 744)})
    >>> [round(each, 4) for each in spent_by([[declared], [declared]], [496, 744])]
    [0.0333, 0.0167]

    Args:
        looks: The terms of each verdict that was reached at each look: the largest of their shares was spent.
        sizes: Held-out items of each look; without them each is the next of those declared.
    """
    found: list[float] = []
    for place, each in enumerate(looks):
        n_items = sizes[place] if sizes else 0
        found.append(max(_spent(terms, place, n_items, before=sum(found)) for terms in each))
    return tuple(found)


def _spent(terms: Terms, n_looks: int, n_items: int, *, before: float) -> float:
    """What the look after `n_looks` others spends."""
    if n_looks >= terms.looks:
        return 0.0
    if terms.at:
        share = number_of(n_items, at=terms.at, before=n_looks) / terms.looks
        return max(0.0, spending(terms.alpha, share, function=terms.spend) - before)
    return max(0.0, min(_increment(terms.alpha, n_looks + 1, terms.looks, terms.spend), terms.alpha - before))


def _increment(alpha: float, number: int, most: int, spend: str) -> float:
    """What the look of this number spends."""
    return spending(alpha, number / most, function=spend) - spending(alpha, (number - 1) / most, function=spend)


def last_levels(gates: GatesSpec) -> Levels:
    """The levels of the last look, if each adds as many items unless `at` says otherwise: what a plan counts with."""
    *before, last = gates.looks.at or range(1, gates.looks.max + 1)
    return levels_of(gates, UsedBudget(looks=len(before), nested=tuple(before)), n_items=last)


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
