"""Find social security, tax and identity numbers of sixteen countries.

They are recognised by checksum (python-stdnum) and form. A run of digits also needs a word such as "SSN" before or
after it, because one order number in ten passes a check digit; after a word such as "order" it is not one.

python-stdnum is imported at the first candidate.
"""

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
    r"(?P<digits>[0-9](?<![\w+][0-9])(?<![0-9][-.,:/][0-9])(?<![A-Za-z]-[0-9])(?:[ .+-]?[0-9]){7,14})"
    r"(?:[ -]?[A-Za-z](?!\w))?(?!\w|[-.,:/][0-9])"
)
_DNI_FORM = re.compile(r"(?:[0-9]{8}|[0-9]{2}\.[0-9]{3}\.[0-9]{3})[ -]?[A-Za-z](?!\w|[-.,:/][0-9])")
_DIGIT = re.compile("[0-9]")
_MARKS = re.compile("[ .-]")
_CHINESE = re.compile(r"[1-9](?<![^\W_][1-9])[0-9]{16}[0-9Xx](?![^\W_])")
_AFTER_LETTERS = re.compile(
    r"[0-9](?:(?<=[A-Za-z][0-9])|(?<=(?<![^\W_])[A-Za-z][ -][0-9])|(?<=(?<![^\W_])[A-Za-z][A-Za-z][ ][0-9]))"
)
_LETTERS = re.compile(
    r"""(?ix)(?<![^\W_])(?:
    (?P<gb>(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]
        (?:[0-9]{6}|[ ]?[0-9]{2}[ ][0-9]{2}[ ][0-9]{2})[ ]?[A-D])
  | (?P<es>[XYZ][ -]?[0-9]{7}[ -]?[A-Z])
  | (?P<de>[LMNPRTVWXY](?=[A-Z]{0,7}[0-9])[0-9CFGHJKLMNPRTVWXYZ]{8}[0-9]?)
  | (?P<it>[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPR-T][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z])
    )(?![^\W_])"""
)
_LONGEST_BEFORE, _LONGEST = 8, 20
_WITHOUT_CHECK_DIGIT = 9
_LIKE_PHONES = frozenset({"in", "se"})  # countries with ids that look like phone numbers


def national_id(
    text: str, start: int, end: int, *, limit: int | None = None, announced: bool = False
) -> tuple[int, str] | None:
    """End and compact form of the id with the digits in [start, end); None if they are none.

    Args:
        text: The text.
        start: First digit.
        end: After the last digit; a letter may follow.
        limit: What the text has from here on does not count: another number of a row.
        announced: Only with a word such as "SSN" before or after it, whatever its form.

    >>> national_id("SSN 460-89-9847", 4, 15), national_id("order 460899847", 6, 15)
    ((15, '460899847'), None)
    """
    match = _DIGITS.match(text, start, len(text) if limit is None else limit)
    if match is None or match.end("digits") != end:
        return None
    if (with_letter := _DNI_FORM.match(text, start)) is not None:
        kinds: tuple[_Kind, ...] = (_DNI,)
        end = with_letter.end()
    else:
        kinds = _SHAPES.get(_DIGIT.sub("9", text[start:end]), ())
    if announced:
        kinds = tuple(kind._replace(alone=False) for kind in kinds)
    if not kinds:
        return None
    compact = _MARKS.sub("", text[start:end]).upper()
    return (end, compact) if _any_holds(kinds, compact, text, start, end) else None


def find_lettered_ids(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the spans of the ids that begin with letters, each with its compact form.

    >>> text = "NI number AB 12 34 56 C, part AB123457C, Personalausweis L01X00T471"
    >>> [text[start:end] for start, end, _ in find_lettered_ids(text)]
    ['AB 12 34 56 C', 'L01X00T471']
    """
    taken = 0
    for place in _AFTER_LETTERS.finditer(text):
        window = max(taken, place.start() - _LONGEST_BEFORE)
        match = _LETTERS.search(text, window, place.start() + _LONGEST)
        if match is None or match.start() < taken:
            continue
        compact = re.sub(r"[ -]", "", match[0]).upper()
        if _letters_hold(match, compact, said_before(text, match.start())):
            taken = match.end()
            yield match.start(), match.end(), compact


def find_chinese_ids(text: str) -> Iterator[tuple[int, int, str]]:
    """Resident identity numbers: they contain a place, a day of birth and a check digit, so they need no cue."""
    for match in _CHINESE.finditer(text):
        if said_before(text, match.start()) != "reference" and _validator("cn.ric").is_valid(match[0]):
            yield match.start(), match.end(), match[0].upper()


def _letters_hold(match: re.Match[str], compact: str, said: Said | None) -> bool:
    kind: Literal["gb", "de", "es", "it"] = match.lastgroup  # type: ignore[assignment]
    if kind == "de":  # an identity card; many part numbers look like one
        return said in {"id_card", "national"} and (len(compact) == _WITHOUT_CHECK_DIGIT or _passes_731(compact))
    if said == "reference":
        return False
    if kind == "gb":
        return True  # a National Insurance number has no check digit; its letters are in the pattern
    return _validator("es.nie" if kind == "es" else "it.codicefiscale").is_valid(compact)


def _passes_731(written: str) -> bool:
    """Whether the last digit of a machine-readable document is right. Source: ICAO Doc 9303 part 3, 4.9."""
    *body, check = (int(mark, 36) for mark in written)
    return sum(value * (7, 3, 1)[place % 3] for place, value in enumerate(body)) % 10 == check


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
