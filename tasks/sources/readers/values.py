"""One value of a source as the ticket column's type: text, UTC time or number; anything else is a fault, no guess.

It knows nothing of rows or files. Called by `tasks/sources/readers/typed.py`, which does the same for whole columns.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from decimal import Decimal

from tasks.sources.readers.read_jsonl import kind_of
from tasks.sources.readers.records import Fault

FREE_TEXT = frozenset({"subject", "body", "reply", "messages"})
"""Columns that take text only; in the others a whole number is a name (a ticket id, a priority) and becomes text."""
TIMES = frozenset({"created_at", "updated_at"})
RATING = "rating"

_EPOCH = re.compile(r"-?\d{9,17}(\.\d+)?")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_ZONE_WITH_SPACE = re.compile(r" (?=[+-]\d{2}:?\d{2}$)")
# An epoch in seconds stays below 1e11 until the year 5138; one in milliseconds is above from 1973 on.
_MILLISECONDS_FROM, _MICROSECONDS_FROM = 1e11, 1e14


def to_text(column: str, value: object) -> str | Fault | None:
    """The value as text; blank text is None, since a blank field says as much as a missing one."""
    match value:
        case None:
            return None
        case str():
            return value if value.strip() else None
        case bytes():
            try:
                return to_text(column, value.decode("utf-8"))
            except UnicodeDecodeError:
                return Fault("TG0241", f"Field {column} is not UTF-8.", column)
        case bool():
            pass
        case int() if column not in FREE_TEXT:
            return str(value)
    return Fault("TG0247", f"Field {column} is {kind_of(value)}; it must be text.", column)


def to_time(column: str, value: object) -> datetime | Fault | None:
    """The value as UTC without a zone: ISO 8601 text, a date, or seconds, milli- or microseconds since 1970.

    Times without a zone are taken as UTC.

    >>> to_time("created_at", "2026-06-01T10:00:00+02:00")
    datetime.datetime(2026, 6, 1, 8, 0)
    >>> to_time("created_at", 1780300800) == to_time("created_at", "1780300800000")
    True
    """
    try:
        match value:
            case None:
                return None
            case str() if not value.strip():
                return None
            case str():
                return _utc(_parse(value.strip()))
            case datetime():
                return _utc(value)
            case date():
                return datetime(value.year, value.month, value.day)
            case bool():
                pass
            case int() | float():
                return _utc(_from_epoch(float(value)))
    except (ValueError, OverflowError, OSError):
        return Fault("TG0214", f"Field {column} is no time that can be read; ISO 8601 or an epoch can.", column)
    return Fault("TG0247", f"Field {column} is {kind_of(value)}; it must be a time.", column)


def to_rating(column: str, value: object) -> float | Fault | None:
    """The value as a number: a number, or text that is one. Stars, words and decimal commas are not guessed at.

    >>> to_rating("rating", " 4.5 "), to_rating("rating", 5), to_rating("rating", "")
    (4.5, 5.0, None)
    """
    match value:
        case None:
            return None
        case str() if not value.strip():
            return None
        case str() if not _NUMBER.fullmatch(value.strip()):
            return Fault("TG0247", f"Field {column} is text that is no number; a rating is a number.", column)
        case bool():
            pass
        case str() | int() | float() | Decimal():
            return _number(column, value)
    return Fault("TG0247", f"Field {column} is {kind_of(value)}; it must be a number.", column)


def _number(column: str, value: str | float | Decimal) -> float | Fault | None:
    try:
        number = float(value)
    except (OverflowError, ValueError):
        number = math.inf
    if math.isnan(number):  # tables of floats say so for null
        return None
    return number if math.isfinite(number) else Fault("TG0247", f"Field {column} is beyond all numbers.", column)


def _parse(text: str) -> datetime:
    if _EPOCH.fullmatch(text):
        return _from_epoch(float(text))
    text = text.removesuffix(" UTC").removesuffix(" utc")
    return datetime.fromisoformat(_ZONE_WITH_SPACE.sub("", text))


def _from_epoch(value: float) -> datetime:
    size = abs(value)
    divisor = 1e6 if size >= _MICROSECONDS_FROM else 1e3 if size >= _MILLISECONDS_FROM else 1
    return datetime.fromtimestamp(value / divisor, tz=UTC)


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
