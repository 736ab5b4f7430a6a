"""When customers write: more each week, mostly on working days and by day. Called by `tickets.py`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tasks.curate.helpdesk.grammar import Dice

WEEKDAY_WEIGHTS = (1.3, 1.15, 1.05, 1.0, 0.95, 0.45, 0.35)
"""Monday to Sunday."""
HOUR_WEIGHTS = dict(
    enumerate((1, 1, 1, 1, 1, 2, 4, 8, 14, 16, 15, 13, 11, 12, 13, 12, 11, 10, 10, 9, 7, 5, 3, 2)),
)
GROWTH_PER_WEEK = 0.05
"""The last week has more tickets than the first by this share of the first for each week between."""


def writing_times(n_tickets: int, *, start: str, n_weeks: int, dice: Dice) -> Iterator[datetime]:
    """`n_tickets` times in rising order, to the second, UTC.

    Each day's number is its share of the total by weight, rounded so that the sum is exact. Memory: one day.
    """
    first = datetime.fromisoformat(start).replace(tzinfo=UTC)
    n_days = 7 * n_weeks
    total = sum(_weight(first, day) for day in range(n_days))
    weight_so_far, n_so_far = 0.0, 0
    for day in range(n_days):
        weight_so_far += _weight(first, day)
        n_until = n_tickets if day == n_days - 1 else round(n_tickets * weight_so_far / total)
        seconds = sorted(3600 * dice.weighted(HOUR_WEIGHTS) + dice.below(3600) for _ in range(n_until - n_so_far))
        n_so_far = max(n_so_far, n_until)
        for second in seconds:
            yield first + timedelta(days=day, seconds=second)


def _weight(first: datetime, day: int) -> float:
    return WEEKDAY_WEIGHTS[(first + timedelta(days=day)).weekday()] * (1 + GROWTH_PER_WEEK * (day // 7))
