"""Is this number a payment card or an IBAN? Issuers, lengths and checksums.

It knows nothing of how candidates are found. Called by `tasks/curate/redaction/personal.py`; python-stdnum, which has
the structure of every country's IBAN, is imported at the first candidate.
"""

from __future__ import annotations

import re
from functools import cache

from tasks.curate.redaction.cue_words import said_before, says_card, words_before

_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
"""Length of an IBAN by country. Source: ISO 13616, SWIFT IBAN registry."""
IBAN_COUNTRIES = tuple(sorted(_IBAN_LENGTHS))

# Issuer prefix and length. Source: ISO/IEC 7812 issuer ranges as the card schemes publish them.
_CARD = re.compile(
    r"""(?x)
    4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})                                              # Visa
  | (?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}  # Mastercard
  | 220[0-4][0-9]{12,15}                                                            # Mir
  | 3[47][0-9]{13}                                                                  # American Express
  | 3(?:0[0-5]|09|[689][0-9])[0-9]{11,16}                                           # Diners Club
  | 35(?:2[89]|[3-8][0-9])[0-9]{12,15} | (?:2131|1800)[0-9]{11}                      # JCB
  | (?:5[06-8]|6[0-9])[0-9]{10,17}                                                  # Maestro, Discover, UnionPay, RuPay
  | 8[12][0-9]{14,17}                                                               # UnionPay, RuPay
    """
)
_SHORTEST_USUAL_CARD = 14
_NO_CARDS = frozenset({"order", "orders", "tracking", "invoice", "parcel", "shipment", "serial", "imei", "ean", "isbn"})


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the rest. Source: ISO/IEC 7812-1 annex B.

    >>> passes_luhn("4111111111111111"), passes_luhn("4111111111111112")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def card_digits(text: str, start: int, end: int) -> str:
    """The digits of the payment card number in [start, end), '' when it is none: issuer, length, Luhn.

    Beside a word such as "card" any issuer counts. Cards of 12 and 13 digits exist, but article numbers (EAN) of that
    length are far more frequent: after a word such as "article" they are no cards. Nor is a longer number without
    groups right after "order" or "tracking".
    """
    digits = re.sub(r"[^0-9]", "", text[start:end])
    if not 12 <= len(digits) <= 19 or not passes_luhn(digits):
        return ""
    if says_card(text, start):
        return digits
    if len(digits) < _SHORTEST_USUAL_CARD and said_before(text, start) == "reference":
        return ""
    if end - start == len(digits) and not _NO_CARDS.isdisjoint(words_before(text, start)[-3:]):
        return ""
    return digits if _CARD.fullmatch(digits) else ""


def iban_end(text: str, start: int) -> int | None:
    """End of the IBAN that begins at `start`, grouped by spaces or hyphens or not at all; None when there is none.

    >>> iban_end("GB82 WEST 1234 5698 7654 32 please", 0)
    27
    """
    length = _IBAN_LENGTHS.get(text[start : start + 2].upper())
    match = _iban_of(length).match(text, start) if length is not None else None
    return match.end() if match is not None and _is_iban(match[0]) else None


@cache
def _iban_of(length: int) -> re.Pattern[str]:
    """So many letters and digits, a space or a hyphen between any two of them, and none behind."""
    return re.compile(rf"[A-Za-z0-9](?:[ -]?[A-Za-z0-9]){{{length - 1}}}(?![A-Za-z0-9])")


def _is_iban(written: str) -> bool:
    from stdnum import iban

    # Not `check_country`: a wrong bank code inside does not make the number less personal.
    return bool(iban.is_valid(written, check_country=False))
