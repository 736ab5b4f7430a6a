"""Converts one value of a source to the ticket column's type: text, UTC time or number; nothing is guessed."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Literal

from schemas.file_reading import EXCEL_DAYS, NUMBER
from tasks.sources.readers.records import Fault


@dataclass(frozen=True)
class ValueForms:
    """How a source writes times and decimals, where it declares that."""

    time_format: str | None = None
    """As of strptime, or `excel`."""
    decimal: Literal[".", ","] = "."

    def declares(self, column: str) -> bool:
        """Whether the column's values need `plain` before they are typed."""
        return (column in TIMES and self.time_format is not None) or (column == RATING and self.decimal == ",")

    def plain(self, column: str, value: object) -> object:
        """The value in the usual form; unchanged if it does not have the declared one.

        >>> ValueForms(time_format="%d.%m.%Y").plain("created_at", "31.12.2026")
        datetime.datetime(2026, 12, 31, 0, 0)
        >>> forms = ValueForms(decimal=",")
        >>> forms.plain("rating", "1.234,5"), forms.plain("rating", "4.5"), forms.plain("rating", "gut")
        ('1234.5', '4.5', 'gut')
        """
        if not self.declares(column):
            return value
        if column in TIMES and self.time_format == EXCEL_DAYS:
            return excel_time(value) or value
        if not isinstance(value, str):
            return value
        if column == RATING:
            has_form = _DECIMAL_COMMA.fullmatch(value.strip()) is not None
            return value.strip().replace(".", "").replace(",", ".") if has_form else value
        return _parsed(value.strip(), self.time_format or "") or value


def excel_time(value: object) -> datetime | None:
    """The time of a number of days since 1899-12-30, to the second; None if it is none between 2000 and 2050.

    Excel's own first days, before March 1900, are off by one; they are older than any ticket.

    >>> excel_time("46027,604166667"), excel_time(46027), excel_time("1767225600")
    (datetime.datetime(2026, 1, 5, 14, 30), datetime.datetime(2026, 1, 5, 0, 0), None)
    """
    text = str(value).strip().replace(",", ".")
    if (
        isinstance(value, bool)
        or not _EXCEL_DAYS.fullmatch(text)
        or not _EXCEL_RANGE[0] <= float(text) < _EXCEL_RANGE[1]
    ):
        return None
    return datetime(1899, 12, 30) + timedelta(seconds=round(float(text) * 86_400))


@lru_cache(maxsize=1 << 16)
def _parsed(text: str, time_format: str) -> datetime | None:
    """The time; None if the text does not have the format. Files of days repeat them."""
    try:
        return datetime.strptime(text, time_format)
    except ValueError:
        return None


FREE_TEXT = frozenset({"subject", "body", "reply", "messages"})
"""Columns that accept only text; in the others a whole number is a name (an id, a priority) and becomes text."""
TIMES = frozenset({"created_at", "updated_at"})
RATING = "rating"

EXACT_FLOAT = 2**53
"""Whole numbers below it are exact in a float64; a larger id may have lost digits when it became a float."""

_EPOCH = re.compile(r"-?\d{9,17}(\.\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?", re.ASCII)
_EXCEL_DAYS = re.compile(r"\d{5}(\.\d+)?", re.ASCII)
_EXCEL_RANGE = (36_526, 55_153)
_ZONE_WITH_SPACE = re.compile(r" (?=[+-]\d{2}:?\d{2}$)")
# An epoch in seconds stays below 1e11 until the year 5138; one in milliseconds is above from 1973 on.
_MILLISECONDS_FROM, _MICROSECONDS_FROM = 1e11, 1e14


def kind_of(value: object) -> str:
    """JSON's word for the kind of a value.

    >>> kind_of(True), kind_of([]), kind_of(None)
    ('boolean', 'list', 'null')
    """
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float() | Decimal():
            return "number"
        case str():
            return "text"
        case list():
            return "list"
        case dict():
            return "object"
        case _:
            return type(value).__name__


def to_text(column: str, value: object) -> str | Fault | None:
    """The value as text; blank text is None, as if the field were missing."""
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
        case float() | Decimal() if column not in FREE_TEXT:
            return _digits(column, value)
    return Fault("TG0247", f"Field {column} has type {kind_of(value)}; it must be text.", column)


def _digits(column: str, value: float | Decimal) -> str | Fault | None:
    """A whole number as an id or label: warehouses write ids as DECIMAL, pandas turns ids with gaps into floats."""
    if value != value:  # NaN, which is null in tables of floats
        return None
    if isinstance(value, float) and abs(value) >= EXACT_FLOAT:
        return inexact_number(column)
    is_whole = value.is_integer() if isinstance(value, float) else value == value.to_integral_value()
    if not is_whole:
        return Fault("TG0247", f"Field {column} is a number with decimals; it must be text or a whole number.", column)
    return str(int(value))


def inexact_number(column: str) -> Fault:
    """The fault of a float that may have lost digits of an id; large JSON integers arrive as floats as well."""
    return Fault("TG0247", f"Field {column} is a number too large to be read exactly; export it as text.", column)


def to_time(column: str, value: object) -> datetime | Fault | None:
    """The value as UTC without a zone: ISO 8601 text, a date, or seconds, milli- or microseconds since 1970.

    Times without a zone are UTC.

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
        return Fault(
            "TG0214",
            f"Field {column} cannot be read as a time; write ISO 8601 or seconds since 1970, or set `time_format`.",
            column,
        )
    return Fault("TG0247", f"Field {column} has type {kind_of(value)}; it must be a time.", column)


def to_rating(column: str, value: object) -> float | Fault | None:
    """The value as a number: a number, or text that is one. Stars, words and decimal commas are not interpreted.

    >>> to_rating("rating", " 4.5 "), to_rating("rating", 5), to_rating("rating", "")
    (4.5, 5.0, None)
    """
    match value:
        case None:
            return None
        case str() if not value.strip():
            return None
        case str() if not NUMBER.fullmatch(value.strip()):
            return Fault("TG0247", f"Field {column} is text but not a number; a rating is a number.", column)
        case bool():
            pass
        case str() | int() | float() | Decimal():
            return _number(column, value)
    return Fault("TG0247", f"Field {column} has type {kind_of(value)}; it must be a number.", column)


def _number(column: str, value: str | float | Decimal) -> float | Fault | None:
    try:
        number = float(value)
    except (OverflowError, ValueError):
        number = math.inf
    if math.isnan(number):  # null in tables of floats
        return None
    return number if math.isfinite(number) else Fault("TG0247", f"Field {column} is too large for a number.", column)


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
