"""How many items a test needs, and the smallest effect that given items can show: numbers in, numbers out.

Knows nothing of rules or files; `tasks/assess/judge.py` asks after a verdict, `tasks/assess/plan_gate.py` before.
"""

from __future__ import annotations

import math

from tasks.assess.compare import z_value


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
