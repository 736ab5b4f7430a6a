"""Is this number a phone number? By its form, by the word beside it, and by the numbering plans of phonenumbers.

It knows nothing of how candidates are found. Called by `tasks/curate/redaction/personal.py`; phonenumbers is imported
at the first candidate that needs it.
"""

from __future__ import annotations

import re

from tasks.curate.redaction.cue_words import said_after, said_before

_FORMS = re.compile(
    r"""
    (?:1[ .-]?)?(?:\([2-9][0-9]{2}\)[ ]?|[2-9][0-9]{2}[ .-])[0-9]{3}[ .-][0-9]{4}    # North America
  | [0-9]{2}(?:([ .-])[0-9]{2})(?:\1[0-9]{2}){2,3}                                   # pairs: Denmark, France
  | [5-9][0-9]{2}[ ][0-9]{3}[ ](?!000)[0-9]{3}                                       # Spain, Poland
  | \([0-9]{1,5}\)[0-9 .\-/\u00a0]+                                                  # area code in brackets
    """,
    re.VERBOSE,
)
_DIGITS = re.compile(r"[^0-9]")
_IN_GROUPS = re.compile(r"[0-9]{2}[^0-9]+[0-9]{2}")
_FOUR_NUMBERS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}$")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:([ .])[0-9]{3})(?:\1[0-9]{3})*")
_MOST_GROUPS_BEFORE = 2
_FEWEST_DIGITS, _MOST_DIGITS, _MOST_NATIONAL = 7, 15, 11


def phone_start(text: str, start: int, end: int, *, region: str) -> int | None:
    """Where the phone number inside the candidate [start, end) begins; None when it is no phone number.

    A number is a phone by its form (+49 ..., 0044 ..., (905) 674-3793, 0151 ...), when written in groups and valid in
    `region`, or, with 7 to 12 digits, beside a word such as "call" or "mobile". After a word such as "order" it is
    not, unless + or a grouped area code says so.
    """
    if text[start] == "+":
        return start if _is_international(_without_extension(text[start:end])) else None
    if _FOUR_NUMBERS.match(text[start:end]):
        return None  # an address or a version
    said = said_before(text, start)
    if said is not None and said != "phone":
        number = _without_extension(text[start:end])
        is_dialled = number.startswith("00") or _n_digits(number) <= _MOST_NATIONAL
        in_groups = number.lstrip("(").startswith("0") and not number.isdigit()
        return start if is_dialled and in_groups and _has_form(number) else None
    beside = said == "phone" or said_after(text, end) == "phone"
    if beside and _FEWEST_DIGITS <= _n_digits(_without_extension(text[start:end])) <= 12:
        return start
    for _ in range(_MOST_GROUPS_BEFORE + 1):
        number = _without_extension(text[start:end])
        if _has_form(number) or _is_valid_in(number, region):
            return start
        # A leading group may be something else: "2 x 0151 2345678" or "in room 12 0151 2345678".
        gap = re.match(r"[0-9]+[ \u00a0]", number)
        if gap is None:
            break
        start += gap.end()
    return None


def _has_form(number: str) -> bool:
    n_digits = _n_digits(number)
    if re.match(r"00[1-9]", number):
        return 10 <= n_digits <= 17 and _is_international(number[2:])
    if number.startswith("0"):
        return not number.startswith("00") and 9 <= n_digits <= 12
    return _FEWEST_DIGITS <= n_digits <= _MOST_DIGITS and _FORMS.fullmatch(number) is not None


def _is_international(number: str) -> bool:
    """Whether a number after + or 00 has a country code and a length that this country knows."""
    import phonenumbers

    # Only the trunk zero in brackets is written and not dialled: +49 (0)151.
    digits = "+" + _DIGITS.sub("", number.replace("(0)", ""))
    if not 8 <= len(digits) - 1 <= _MOST_DIGITS:
        return False
    try:
        return bool(phonenumbers.is_possible_number(phonenumbers.parse(digits)))
    except phonenumbers.NumberParseException:
        return False


def _is_valid_in(number: str, region: str) -> bool:
    """Whether a number written in groups (never a bare run of digits, never thousands) is dialled so in `region`."""
    if (
        not _IN_GROUPS.search(number)
        or _THOUSANDS.fullmatch(number)
        or not _FEWEST_DIGITS <= _n_digits(number) <= _MOST_DIGITS
    ):
        return False
    import phonenumbers

    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(number, region)))
    except phonenumbers.NumberParseException:
        return False


def _without_extension(number: str) -> str:
    return re.split(r"\s?(?:x|ext)", number, maxsplit=1)[0]


def _n_digits(number: str) -> int:
    return len(_DIGITS.sub("", number))
