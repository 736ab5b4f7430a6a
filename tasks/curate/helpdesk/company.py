"""The fictional company: its products, its agents and customers, and the small facts a ticket mentions.

Every name is made up. It knows nothing of sentences. Used by the other modules of the help desk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tasks.curate.helpdesk.grammar import Dice

CATEGORIES: Final = (
    "billing", "delivery", "returns", "account", "technical", "product-info", "cancellation", "feedback",
)  # fmt: skip
PRIORITIES: Final = ("low", "normal", "high")
CHANNELS: Final[Mapping[str, float]] = {"mail": 0.5, "web": 0.25, "chat": 0.18, "phone": 0.07}
AGENTS: Final[Mapping[str, str]] = {
    "billing": "Mara",
    "delivery": "Tobias",
    "returns": "Ines",
    "account": "Kofi",
    "technical": "Ravi",
    "product-info": "Lena",
    "cancellation": "Selma",
    "feedback": "Arne",
}
"""Who signs for each category."""

REFERENCE: Final = "\x01"
"""Stands behind a product's name in a text: here the order reference may be added."""


@dataclass(frozen=True)
class Product:
    """One product and what customers say of it."""

    name: str
    noun: str
    plural: str
    parts: tuple[str, ...]
    rooms: tuple[str, ...]
    place: str
    """Where it gets cold or hot."""
    faults: tuple[str, ...]
    """What it does wrong, as the end of a sentence that begins with its name."""
    prices: tuple[int, ...]
    """Euros, rising."""


PRODUCTS: Final = (
    Product(
        "Fjord Lamp",
        "lamp",
        "lamps",
        ("shade", "base", "dimmer"),
        ("living room", "bedroom", "hallway", "study"),
        "terrace",
        (
            "flickers when I dim it",
            "goes dark after ten minutes",
            "changes its colour without being asked",
            "stays at full brightness",
            "turns on in the middle of the night",
        ),
        (79, 89, 119, 149),
    ),
    Product(
        "Skerry Thermostat",
        "thermostat",
        "thermostats",
        ("display", "dial", "wall plate"),
        ("bathroom", "living room", "nursery", "kitchen"),
        "attic",
        (
            "heats the room to thirty degrees",
            "leaves the room ice-cold",
            "shows an empty display",
            "forgets the temperature I set",
            "clicks and then does nothing",
        ),
        (99, 129, 159, 189),
    ),
    Product(
        "Tarn Battery",
        "battery",
        "batteries",
        ("cover", "cable", "display"),
        ("cellar", "garage", "utility room"),
        "garage",
        (
            "stops charging at sixty percent",
            "is empty before midnight",
            "turns itself off in the evening",
            "jumps from full to empty",
            "takes no power from the roof",
        ),
        (1190, 1390, 1690, 1890),
    ),
    Product(
        "Heron Charger",
        "charger",
        "chargers",
        ("cable", "plug", "holder"),
        ("garage", "carport", "courtyard"),
        "carport",
        (
            "stops after a few minutes",
            "charges at half the speed",
            "does not recognise the car",
            "blinks red and does nothing",
            "lets go of the plug while charging",
        ),
        (449, 549, 649, 749),
    ),
)

FIRST_NAMES: Final = (
    "Ada", "Amir", "Anouk", "Bela", "Birgit", "Carlos", "Chiara", "Dario", "Dilek", "Edda", "Emil", "Esra", "Fatou",
    "Finn", "Greta", "Hanna", "Henrik", "Ilse", "Ivo", "Jana", "Jonas", "Judit", "Kai", "Karim", "Leo", "Lotte",
    "Malik", "Marit", "Mina", "Nadia", "Nils", "Olga", "Oskar", "Paula", "Priya", "Rosa", "Ruben", "Samir", "Sofia",
    "Stella", "Tariq", "Thea", "Tomas", "Vera", "Viktor", "Wanda", "Yara", "Yusuf", "Zoe", "Zora",
)  # fmt: skip
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
    """Somebody who writes, known by a number and a first name."""

    customer_id: str
    first_name: str


class Customers:
    """Customers who come and go: each is active for a fifth of the period, some far more than others.

    Memory: two small values per customer.
    """

    def __init__(self, n_customers: int, dice: Dice) -> None:
        self._names = [dice.pick(FIRST_NAMES) for _ in range(n_customers)]
        self._eagerness = [max(0.06, dice.fraction() ** 3) for _ in range(n_customers)]

    def who_writes(self, progress: float, dice: Dice) -> Customer:
        """A customer active at this point of the period (0-1); one in 25 is a regular from any time."""
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
    """Slots of one concern: the same product, prices and days in every sentence about it."""
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
