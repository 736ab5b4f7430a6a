"""The fictional company: its customers, when they write, and the small facts that a ticket mentions.

Every name is made up.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from tasks.sources.helpdesk.grammar import Dice
from tasks.sources.helpdesk.phrases import PHRASES, Product

CATEGORIES: Final = (
    "billing", "delivery", "returns", "account", "technical", "product-info", "cancellation", "feedback",
)  # fmt: skip
CHANNELS: Final[Mapping[str, float]] = {"mail": 0.5, "web": 0.25, "chat": 0.18, "phone": 0.07}
REFERENCE: Final = "\x01"
"""Marks the end of a product's name in a text, where the order reference may be added."""
PRODUCTS: Final = PHRASES.products
_RELATIVES = (("mother", "she"), ("father", "he"), ("aunt", "she"), ("uncle", "he"), ("grandmother", "she"))
_COLOURS = ("white", "black", "grey", "copper", "green")
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_NUMBERS = ("three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Customer:
    """A customer, known by a number and a first name."""

    customer_id: str
    first_name: str


class Customers:
    """Customers who come and go: each writes during a fifth of the period, some far more often than others.

    Memory: two small values per customer.
    """

    def __init__(self, n_customers: int, dice: Dice) -> None:
        self._names = [dice.pick(PHRASES.first_names) for _ in range(n_customers)]
        self._eagerness = [max(0.06, dice.fraction() ** 3) for _ in range(n_customers)]

    def draw_writer(self, progress: float, dice: Dice) -> Customer:
        """A customer active at this point of the period (0-1); one draw in 25 is a customer of any time."""
        n = len(self._names)
        for _ in range(12):
            position = dice.fraction() if dice.chance(0.04) else 0.8 * progress + 0.2 * dice.fraction()
            number = min(int(position * n), n - 1)
            if dice.chance(self._eagerness[number]):
                break
        return Customer(f"C-{number + 1:04d}", self._names[number])


def reference_of(number: int, seed: int) -> str:
    """The order reference of the number-th concern: five digits, no repetition among the first 90,000.

    >>> reference_of(0, 20260601), reference_of(1, 20260601)
    ('NB-79319', 'NB-37590')
    """
    return f"NB-{10_000 + (number * 48_271 + seed * 7_919) % 90_000}"


def weekday_of(day: datetime) -> str:
    """The day's English name."""
    return _WEEKDAYS[day.weekday()]


def facts_of(product: Product, now: datetime, dice: Dice) -> dict[str, str]:
    """Slots of one concern, so that each sentence about it has the same product, prices and days."""
    price = 1 + dice.below(len(product.prices) - 1)
    other = dice.pick([candidate for candidate in PRODUCTS if candidate is not product])
    days = 3 + dice.below(7)
    earlier = 1 + dice.below(3)
    small = 3 + dice.below(9)
    colour = dice.below(len(_COLOURS))
    relative, they = dice.pick(_RELATIVES)
    return {
        "name": product.name,
        "noun": product.noun,
        "nouns": product.plural,
        "part": dice.pick(product.parts),
        "room": dice.pick(product.rooms),
        "place": product.place,
        "fault": dice.pick(product.faults),
        "amount": f"{product.prices[price]}",
        "amount2": f"{product.prices[price - 1]}",
        "other": other.name,
        "other_noun": other.noun,
        "other_nouns": other.plural,
        "days": _NUMBERS[days - 3],
        "count": _NUMBERS[dice.below(4)],
        "weekday": weekday_of(now - timedelta(days=earlier + 1)),
        "weekday2": weekday_of(now - timedelta(days=earlier)),
        "soon": weekday_of(now + timedelta(days=2 + dice.below(3))),
        "month": _MONTHS[(now.month - 2) % 12],
        "small": f"{small}",
        "small2": f"{small + 2}",
        "percent": f"{10 + 5 * dice.below(17)}",
        "code": f"E{10 + dice.below(80)}",
        "colour": _COLOURS[colour],
        "colour2": _COLOURS[(colour + 1 + dice.below(len(_COLOURS) - 1)) % len(_COLOURS)],
        "relative": relative,
        "they": they,
    }


WEEKDAY_WEIGHTS = (1.3, 1.15, 1.05, 1.0, 0.95, 0.45, 0.35)
"""Monday to Sunday."""
HOUR_WEIGHTS = dict(enumerate((1, 1, 1, 1, 1, 2, 4, 8, 14, 16, 15, 13, 11, 12, 13, 12, 11, 10, 10, 9, 7, 5, 3, 2)))
GROWTH_PER_WEEK = 0.05
"""Growth per week as a fraction of the tickets of the first week (0-1)."""


def writing_times(n_tickets: int, *, start: str, n_weeks: int, dice: Dice) -> Iterator[datetime]:
    """`n_tickets` times in ascending order, to the second, UTC.

    Each day gets its share by weight, rounded so that the sum is exact. Memory: one day.
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
