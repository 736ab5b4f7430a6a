"""Cut a row of numbers into values: of all ways to read it, the one that leaves the fewest digits counts.

"+49 30 9830628. 559-292-9000" looks like one number with gaps, and so does a card that begins like an id. What a part
of the row is, its reader decides; this knows only gaps.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from schemas.curation_steps import RedactionType

_ROW = re.compile(r"[+(0-9](?:(?<=[+(])[ \u00a0(]{0,2}[0-9])?(?:[ ._\-/()+\u00a0]{0,3}[0-9]){6,}+")
_BREAK = re.compile(r"(?<=[0-9)])[._\-/)]{0,2}[ \u00a0][ ._\-/\u00a0]{0,2}(?=[+(0-9])")
"""A gap at which a number may end: one with a blank in it."""
_DIGIT = re.compile("[0-9]")
_FEWEST_DIGITS, _MOST_DIGITS = 7, 19
_TABLE = 64
"""In a row of more numbers no value begins with a single digit."""


class FoundValue(NamedTuple):
    """One value: characters [start, end) of the text, its type, and the form in which equal values are equal."""

    start: int
    end: int
    type: RedactionType
    key: str


class NumberPart(NamedTuple):
    """Some numbers of a row that may be one value: characters [start, end) of the text."""

    start: int
    end: int
    limit: int
    """The part is read as if the text ended here: at its own end, or not at all if it is the end of the row."""
    n_others: int
    """Numbers of the row that are left out and have two digits or more; 1 if all have one."""


class _Best(NamedTuple):
    """The best way to read a row from one number on."""

    n_digits: int
    n_values: int
    value: FoundValue | None
    then: int
    """The number from which the rest is read."""


def read_rows(text: str, read: Callable[[NumberPart], FoundValue | None]) -> Iterator[FoundValue]:
    """Yield the values of each row of numbers, left to right, without overlaps.

    Args:
        text: The text.
        read: The value that is exactly this part, None if it is none.

    >>> def read(part):
    ...     is_phone = part.end - part.start == 12
    ...     return FoundValue(part.start, part.end, "phone", "") if is_phone else None
    >>> text = "Call 415-873-2700 12 559-292-9000."
    >>> [text[value.start : value.end] for value in read_rows(text, read)]
    ['415-873-2700', '559-292-9000']
    """
    for row in _ROW.finditer(text):
        start, end = row.span()
        whole = read(NumberPart(_inside(text, start, end), end, len(text), 0))
        if whole is not None:
            yield whole
        elif breaks := [found.span() for found in _BREAK.finditer(text, start, end)]:
            yield from _fewest_digits_left(
                text, [start, *(last for _, last in breaks)], [*(first for first, _ in breaks), end], read
            )


def _fewest_digits_left(
    text: str, starts: list[int], ends: list[int], read: Callable[[NumberPart], FoundValue | None]
) -> Iterator[FoundValue]:
    """Read a row of the numbers [starts[n], ends[n]): from its end, the best from each number on."""
    n_digits = [len(_DIGIT.findall(text, start, end)) for start, end in zip(starts, ends, strict=True)]
    n_long, n_numbers = sum(n > 1 for n in n_digits), len(starts)
    best = [_Best(0, 0, None, n_numbers)] * (n_numbers + 1)
    for first in reversed(range(n_numbers)):
        best[first], n, n_others = best[first + 1]._replace(value=None, then=first + 1), 0, n_long
        if n_numbers > _TABLE and n_digits[first] == 1:
            continue
        for last in range(first, n_numbers):
            n += n_digits[last]
            n_others -= n_digits[last] > 1
            if n > _MOST_DIGITS:
                break
            is_end = last == n_numbers - 1
            if n < _FEWEST_DIGITS or (is_end and first == 0):
                continue
            start, end = _inside(text, starts[first], ends[last]), ends[last]
            value = read(NumberPart(start, end, len(text) if is_end else end, max(1, n_others)))
            if value is not None:
                rest = best[last + 1]
                found = _Best(n + rest.n_digits, rest.n_values + 1, value, last + 1)
                best[first] = max(best[first], found, key=lambda each: (each.n_digits, -each.n_values))
    first = 0
    while first < n_numbers:
        if (value := best[first].value) is not None:
            yield value
        first = best[first].then


def _inside(text: str, start: int, end: int) -> int:
    """The start of the part without a bracket that closes after it: "(559-292-9000)", but not "(030) 9830628"."""
    return start + 1 if text[start] == "(" and ")" not in text[start:end] else start
