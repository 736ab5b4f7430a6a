"""Find social security, tax and identity numbers of fifteen countries.

They are recognised by checksum (python-stdnum) and form. A run of digits also needs a word such as "SSN" before or
after it, because one order number in ten passes a check digit; after a word such as "order" it is not one.

python-stdnum is imported at the first candidate.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple, Protocol, cast

from tasks.curate.redaction.numbers import NUMBER_WORDS, Said, said_after, said_before


class _Kind(NamedTuple):
    """A module of python-stdnum, the cue of its country, and whether the form alone is enough evidence."""

    module: str
    cue: Said
    alone: bool


class _Validator(Protocol):
    def is_valid(self, number: str) -> bool: ...


def _kind(reading: str) -> _Kind:
    module, cue, *alone = reading.split()
    return _Kind(module, cast("Said", cue), bool(alone))


_SHAPES = {written: tuple(map(_kind, readings)) for written, readings in NUMBER_WORDS.shapes.items()}
_DNI = _Kind("es.dni", "es", True)
_DIGITS = re.compile(
    r"[0-9](?<![\w+][0-9])(?<![0-9][-.,:/][0-9])(?<![A-Za-z]-[0-9])(?:[ .+-]?[0-9]){7,14}"
    r"(?P<letter>[ -]?[A-Za-z](?!\w))?(?!\w|[-.,:/][0-9])"
)
_DNI_FORM = re.compile(r"[0-9]{8}[ -]?[A-Za-z]|[0-9]{2}\.[0-9]{3}\.[0-9]{3}[ -]?[A-Za-z]")
_CHINESE = re.compile(r"[1-9](?<![^\W_][1-9])[0-9]{16}[0-9Xx](?![^\W_])")
_AFTER_LETTERS = re.compile(
    r"[0-9](?:(?<=[A-Za-z][0-9])|(?<=(?<![^\W_])[A-Za-z][ -][0-9])|(?<=(?<![^\W_])[A-Za-z][A-Za-z][ ][0-9]))"
)
_LETTERS = re.compile(
    r"""(?ix)(?<![^\W_])(?:
    (?P<gb>(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]
        (?:[0-9]{6}|[ ]?[0-9]{2}[ ][0-9]{2}[ ][0-9]{2})[ ]?[A-D])
  | (?P<es>[XYZ][ -]?[0-9]{7}[ -]?[A-Z])
  | (?P<it>[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPR-T][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z])
    )(?![^\W_])"""
)
_LONGEST_BEFORE, _LONGEST = 7, 20
_LIKE_PHONES = frozenset({"in", "se"})  # countries whose ids look like phone numbers


def find_national_ids(text: str, *, digits: bool = True, announced: bool = False) -> Iterator[tuple[int, int, str]]:
    """Yield the spans of the numbers, each with its compact form.

    Args:
        text: The text.
        digits: Whether the text has a number of seven or more digits; without one only ids that begin with letters
            are searched.
        announced: Only numbers with a word such as "SSN" before or after them, whatever their form.

    >>> text = "SSN 460-89-9847, CPF 390.533.447-05, order 460899847"
    >>> [text[start:end] for start, end, _ in find_national_ids(text)]
    ['460-89-9847', '390.533.447-05']
    """
    if announced:
        yield from _by_digits(text, announced=True)
        return
    if digits:
        yield from _chinese(text)
        yield from _by_digits(text)
    yield from _by_letters(text)


def _by_digits(text: str, *, announced: bool = False) -> Iterator[tuple[int, int, str]]:
    for match in _DIGITS.finditer(text):
        end = match.end()
        kinds: tuple[_Kind, ...] = (_DNI,) if match["letter"] and _DNI_FORM.fullmatch(match[0]) else ()
        if not kinds:
            end = match.start("letter") if match["letter"] else end
            kinds = _SHAPES.get(re.sub("[0-9]", "9", text[match.start() : end]), ())
        compact = re.sub(r"[ .-]", "", text[match.start() : end])
        if announced:
            kinds = tuple(kind._replace(alone=False) for kind in kinds)
        if kinds and _any_holds(kinds, compact, text, match.start(), end):
            yield match.start(), end, compact.upper()


def _chinese(text: str) -> Iterator[tuple[int, int, str]]:
    """Resident identity numbers: they contain a place, a day of birth and a check digit, so they need no cue."""
    for match in _CHINESE.finditer(text):
        if said_before(text, match.start()) != "reference" and _validator("cn.ric").is_valid(match[0]):
            yield match.start(), match.end(), match[0].upper()


def _by_letters(text: str) -> Iterator[tuple[int, int, str]]:
    taken = 0
    for place in _AFTER_LETTERS.finditer(text):
        window = max(taken, place.start() - _LONGEST_BEFORE)
        match = _LETTERS.search(text, window, place.start() + _LONGEST)
        if match is None or match.start() < taken:
            continue
        compact = re.sub(r"[ -]", "", match[0]).upper()
        if _letters_hold(match, compact) and said_before(text, match.start()) != "reference":
            taken = match.end()
            yield match.start(), match.end(), compact


def _letters_hold(match: re.Match[str], compact: str) -> bool:
    kind: Literal["gb", "es", "it"] = match.lastgroup  # type: ignore[assignment]
    if kind == "gb":
        return True  # a National Insurance number has no check digit; its letters are in the pattern
    return _validator("es.nie" if kind == "es" else "it.codicefiscale").is_valid(compact)


def _any_holds(kinds: tuple[_Kind, ...], compact: str, text: str, start: int, end: int) -> bool:
    said = said_before(text, start)
    if said in {None, "phone", "reference"}:
        said = said_after(text, end) or said
    for kind in kinds:
        is_announced = said in {kind.cue, "national"}
        is_another = said == "reference" or (said == "phone" and kind.cue in _LIKE_PHONES)
        if (is_announced or (kind.alone and not is_another)) and _validator(kind.module).is_valid(compact):
            return True
    return False


@cache
def _validator(module: str) -> _Validator:
    return importlib.import_module(f"stdnum.{module}")
