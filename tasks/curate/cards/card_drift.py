"""Measure how much the tickets have changed since the last card: the population stability index per distribution."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import orjson
from pydantic import ValidationError

from schemas.artifacts import CurationCard
from schemas.curation_card import CARD_VERSION, CardNumbers, ColumnShift, Distribution
from schemas.errors import DataError

MODERATE = 0.1
MAJOR = 0.25
"""Below `MODERATE` the change is minor, from `MAJOR` on the population is a different one.
Source: Siddiqi, "Credit Risk Scorecards", Wiley 2006. A rule of thumb, according to Yurdakul and Naranjo
(`shift_of`)."""
LEAST_SHARE = 1e-4
"""Replaces a share of 0, which has no logarithm."""


def read_card(card: CurationCard | None) -> CardNumbers | None:
    """Return the numbers of a card; None without a card, or if it has another version.

    Raises:
        DataError: the card is damaged.
    """
    if card is None:
        return None
    try:
        content = card.numbers.read_bytes()
        if orjson.loads(content).get("version") != CARD_VERSION:
            return None
        return CardNumbers.model_validate_json(content)
    except (OSError, orjson.JSONDecodeError, AttributeError, ValidationError) as error:
        raise DataError(
            f"the card of the last run cannot be read: {type(error).__name__}",
            code="TG0231",
            where=str(card.numbers),
            hint="remove it: the next card then has no comparison",
        ) from None


def stability_index(current: Sequence[int], reference: Sequence[int]) -> float:
    """Return the sum over the bins of (p - q) ln(p / q), p and q the shares of current and reference; 0 if equal.

    Source: Siddiqi (see `MAJOR`). It is Jeffreys' divergence.

    >>> round(stability_index([50, 50], [80, 20]), 4)
    0.4159
    """
    n_current, n_reference = sum(current), sum(reference)
    index = 0.0
    for now, then in zip(current, reference, strict=True):
        if now or then:
            p, q = max(now / n_current, LEAST_SHARE), max(then / n_reference, LEAST_SHARE)
            index += (p - q) * math.log(p / q)
    return index


def shift_of(
    column: str, *, counts: Mapping[str, int], n_missing: int, n: int, reference: Distribution
) -> ColumnShift | None:
    """Return the column's shift over the reference's bins: its values, all others, none. None if a side has no ticket.

    Without any change the mean of the index is about (k - 1)(1/n + 1/m) for k bins and n and m tickets. If that alone
    reaches `MODERATE`, there is no verdict.
    Source: Yurdakul and Naranjo, "Statistical properties of the population stability index", Journal of Risk
    Model Validation: the index over (1/n + 1/m) is nearly chi-squared with k - 1 degrees of freedom.

    Args:
        column: Its name.
        counts: Value -> current tickets, at least for the values of the reference.
        n_missing: Current tickets without a value.
        n: All current tickets.
        reference: The distribution of the last card.
    """
    if not n or not reference.n or (n_missing == n and reference.missing.n == reference.n):
        return None
    now = [counts.get(bin.value, 0) for bin in reference.values]
    now += [n - n_missing - sum(now), n_missing]
    then = [bin.n for bin in (*reference.values, reference.other, reference.missing)]
    n_bins = sum(bool(a or b) for a, b in zip(now, then, strict=True))
    index = stability_index(now, then)
    chance = (n_bins - 1) * (1 / n + 1 / reference.n)
    return ColumnShift(column=column, index=round(index, 6), chance=round(chance, 6), verdict=_verdict(index, chance))


def _verdict(index: float, chance: float) -> Literal["stable", "moderate", "major", "too few tickets"]:
    if chance >= MODERATE:
        return "too few tickets"
    if index < MODERATE:
        return "stable"
    return "moderate" if index < MAJOR else "major"
