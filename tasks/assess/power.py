"""The number of items that a test needs, and the smallest effect that given items can show: numbers in, numbers out."""

import math
from collections.abc import Callable
from functools import cache
from statistics import NormalDist

import numpy as np

from schemas.gates import MIN_GAIN
from tasks.assess.binomial import exceeded_by, exceeds
from tasks.assess.compare import z_value

ASSUMED_DISCORDANCE = 0.1
"""Share of items on which two models differ, before a verdict has measured it."""


def items_needed(
    distance: float, *, sd_null: float, sd_true: float, confidence: float, power: float = 0.8
) -> int | None:
    """Items with which a one-sided test finds `distance` at this power; None if there is nothing to find.

    Args:
        distance: True value minus the limit of the test, above 0.
        sd_null: Standard deviation of one item's value if the true value is at the limit.
        sd_true: True standard deviation of one item's value.

    Source: the normal approximation, n = ((z_confidence * sd_null + z_power * sd_true) / distance)**2.
    """
    if not distance > 0:
        return None
    return max(1, math.ceil(((z_value(confidence) * sd_null + z_value(power) * sd_true) / distance) ** 2))


def paired_items_needed(
    difference: float, *, discordance: float, confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """Items to find a difference of two paired proportions, given the share of items on which the two disagree.

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


def gain_items_needed(
    effect: float,
    *,
    variance: float,
    paired: bool,
    margin: float = 0.0,
    min_gain: float | None = 0.0,
    confidence: float = 0.95,
    power: float = 0.8,
) -> int | None:
    """Items with which a true gain is shown to be a loss of at most `margin`, and measured to be at least `min_gain`.

    >>> gain_items_needed(0.03, variance=0.1, paired=True, margin=0.02, min_gain=0.01)
    247
    >>> gain_items_needed(0.05, variance=0.1, paired=True) == paired_items_needed(0.05, discordance=0.1)
    True

    Args:
        variance: Of one item's difference; the discordance if `paired`.
        paired: The difference is of right and wrong answers, so that the gain is a part of the discordance.
        margin: 0 for improve.
        min_gain: None is `MIN_GAIN` or one standard error, whichever is more.
    """
    if not effect > 0:
        return None
    null = max(variance, effect) if paired else variance
    true = math.sqrt(null - effect**2 if paired else null)
    shown = items_needed(effect + margin, sd_null=math.sqrt(null), sd_true=true, confidence=confidence, power=power)
    # Measuring a gain is the test of confidence 0.5; one of a standard error, of that which one error has.
    least = MIN_GAIN if min_gain is None else min_gain
    needed = [shown, items_needed(effect - least, sd_null=0.0, sd_true=true, confidence=0.5, power=power)]
    if min_gain is None:
        one = NormalDist().cdf(1.0)
        needed.append(items_needed(effect, sd_null=math.sqrt(null), sd_true=true, confidence=one, power=power))
    return None if None in needed else max(each for each in needed if each is not None)


def smallest_gain(
    n_items: int,
    *,
    variance: float,
    paired: bool,
    margin: float = 0.0,
    min_gain: float | None = 0.0,
    confidence: float = 0.95,
    power: float = 0.8,
) -> float | None:
    """Smallest true gain for which `n_items` are enough; None if there is none."""
    return _smallest(
        lambda effect: gain_items_needed(
            effect, variance=variance, paired=paired, margin=margin, min_gain=min_gain, confidence=confidence,
            power=power,
        ),
        n_items,
    )  # fmt: skip


def smallest_difference(
    n_items: int, *, discordance: float, confidence: float = 0.95, power: float = 0.8
) -> float | None:
    """Smallest difference of two paired proportions that `n_items` find at this power; None if there is none.

    >>> round(smallest_difference(246, discordance=0.1), 3)
    0.05
    """
    return _smallest(
        lambda difference: paired_items_needed(difference, discordance=discordance, confidence=confidence, power=power),
        n_items,
    )


def margin_items_needed(
    margin: float, *, discordance: float, confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """Items to show that an equal candidate is at most `margin` worse.

    >>> margin_items_needed(0.02, discordance=0.1)
    1546

    An approximation: for a power of 80 %, the gate's is 76 % at 250 items and 79 % at 1,500.

    Source: as `paired_items_needed`, with the variance of no difference on both sides.
    """
    sd = math.sqrt(discordance)
    return items_needed(margin, sd_null=sd, sd_true=sd, confidence=confidence, power=power)


def smallest_margin(n_items: int, *, discordance: float, confidence: float = 0.95, power: float = 0.8) -> float | None:
    """Smallest margin that `n_items` show for an equal candidate."""
    return _smallest(
        lambda margin: margin_items_needed(margin, discordance=discordance, confidence=confidence, power=power), n_items
    )


@cache  # a tenth of a second, and each of validate, plan and run asks it for the same rules
def share_items_needed(
    limit: float, true: float, *, confidence: float = 0.95, power: float = 0.8, most: int = 20_000
) -> int | None:
    """Items with which the exact bound of a share of `true` reaches `limit` at this power; None above `most`.

    The power of an exact test is not monotonic in n: this is the number from which it stays high enough.

    >>> share_items_needed(0.98, 1.0)
    149

    Source: the binomial distribution, as in Clopper and Pearson (1934).
    """
    if not 0 < limit < true <= 1:
        return 1 if limit <= 0 <= true <= 1 else None
    n = np.arange(1, most + 1)
    enough = exceeded_by(1 - confidence, n, limit) + 1  # fewest right answers whose bound reaches the limit
    reached = (exceeds(enough - 1, n, true) >= power) & (enough <= n)
    short = np.flatnonzero(~reached)
    first = int(short[-1]) + 2 if len(short) else 1
    return first if first <= most else None


def smallest_distance(n_items: int, limit: float, *, confidence: float = 0.95, power: float = 0.8) -> float | None:
    """How far above `limit` a true share must be for `n_items` to show it; None if even 1 is too close."""
    if not 0 < limit < 1:
        return 0.0 if limit <= 0 else None
    enough = int(exceeded_by(1 - confidence, n_items, limit)) + 1
    if enough > n_items:
        return None
    low, high = limit, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if exceeds(enough - 1, n_items, middle) >= power else (middle, high)
    return high - limit


def _smallest(needed: Callable[[float], int | None], n_items: int) -> float | None:
    low, high = 0.0, 1.0
    if (most := needed(high)) is None or most > n_items:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        items = needed(middle)
        low, high = (low, middle) if items is not None and items <= n_items else (middle, high)
    return high
