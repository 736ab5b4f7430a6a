"""Is this number a card, an IBAN, a phone? Checksums, lengths, forms and the words beside it.

It knows nothing of how candidates are found. Called by `tasks/curate/redaction/personal.py`.
"""

from __future__ import annotations

import re

# Length of an IBAN by country. Source: ISO 13616, SWIFT IBAN registry.
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

# Visa, Mastercard, American Express, Diners, JCB, Discover, UnionPay, Maestro. Source: ISO/IEC 7812 issuer ranges.
_CARD_ISSUERS = re.compile(r"(?:4|5[0-8]|2[2-7]|3[0-9]|6|2131|1800)")
_SHORT_CARDS = re.compile(r"(?:5[06-8]|6[0-9])[0-9]{10}$|4[0-9]{12}$")

# The words that say what a number is; the nearest one before it counts, up to four words away.
_SAYS_WHAT = re.compile(
    r"""(?ix)\b(?:
    (?P<phone>phone|mobile|cell|cellphone|tel|telephone|fax|whatsapp|sms|text|call|calling|answers|answering|reach|ring
        |dial|contact|registered|telefon|handy|mobil|anrufen|rufnummer|portable|téléphone|teléfono|móvil|telefono)
  | (?P<reference>orders?|invoice|ticket|case|ref|reference|tracking|shipment|parcel|package|serial|sku|part|article
        |item|rma|booking|account|contract|customer|purchase|transaction|bestellung|bestellnummer|auftrag|rechnung
        |kundennummer|commande|facture|pedido|factura|ean|isbn|imei|id)
    )\b"""
)
_NEAR = re.compile(r"\W*(?:\w+\W+){0,4}")
_PHONE_AFTER = re.compile(
    r"(?i)\W*(?:(?:is|was|my|our|the|work|home)\W+){0,3}(?:phone|mobile|cell|telephone|fax|office)\b"
)
_PHONE_FORMS = re.compile(
    r"""
    (?:1[ .-]?)?(?:\([2-9][0-9]{2}\)[ ]?|[2-9][0-9]{2}[ .-])[0-9]{3}[ .-][0-9]{4}    # North America
  | [0-9]{2}(?:([ .-])[0-9]{2})(?:\1[0-9]{2}){2,3}                                   # pairs: Denmark, France
  | [5-9][0-9]{2}[ ][0-9]{3}[ ](?!000)[0-9]{3}                                       # Spain, Poland
  | \([0-9]{1,5}\)[0-9 .\-/\u00a0]+                                                  # area code in brackets
    """,
    re.VERBOSE,
)


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


def card_digits(candidate: str) -> str:
    """The digits of a payment card number, '' when it cannot be one (issuer, length, Luhn)."""
    digits = re.sub(r"[^0-9]", "", candidate)
    long_enough = len(digits) >= 14 or _SHORT_CARDS.match(digits)
    return digits if long_enough and _CARD_ISSUERS.match(digits) and passes_luhn(digits) else ""


def iban_end(text: str, start: int) -> int | None:
    """End of the IBAN that begins at `start`, grouped by spaces or hyphens or not at all; None when there is none.

    >>> iban_end("GB82 WEST 1234 5698 7654 32 please", 0)
    27
    """
    length = _IBAN_LENGTHS.get(text[start : start + 2].upper())
    if length is None:
        return None
    compact = ""
    place = start
    while len(compact) < length:
        if place < len(text) and text[place] in " -" and compact:
            place += 1
        if place >= len(text) or not (text[place].isascii() and text[place].isalnum()):
            return None
        compact += text[place].upper()
        place += 1
    if place < len(text) and text[place].isascii() and text[place].isalnum():
        return None
    number = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
    return place if int(number) % 97 == 1 else None


def looks_like_phone(text: str, start: int, end: int) -> int | None:
    """Where the phone number inside the candidate [start, end) begins; None when it is no phone number.

    A number is a phone by its form (+49 ..., 0044 ..., (905) 674-3793, 0151 ...) or, with 7 to 12 digits, beside a
    word such as "call" or "mobile". After a word such as "order" it is not, unless + or a grouped area code says so.
    """
    if text[start] == "+":
        return start if 8 <= _n_digits(_without_extension(text[start:end])) <= 15 else None
    said = _said_before(text[max(0, start - 64) : start])
    if said == "reference":
        number = _without_extension(text[start:end])
        return start if re.match(r"\(?0", number) and not number.isdigit() and _has_phone_form(number) else None
    beside = said == "phone" or _PHONE_AFTER.match(text[end : end + 40])
    if beside and 7 <= _n_digits(_without_extension(text[start:end])) <= 12:
        return start
    while True:
        number = _without_extension(text[start:end])
        if _has_phone_form(number):
            return start
        # A leading group may be something else: "2 x 0151 2345678" or "in room 12 0151 2345678".
        gap = re.match(r"[0-9]+[ \u00a0]", number)
        if gap is None:
            return None
        start += gap.end()


def _said_before(before: str) -> str | None:
    words = list(_SAYS_WHAT.finditer(before))
    return words[-1].lastgroup if words and _NEAR.fullmatch(before, words[-1].end()) else None


def _has_phone_form(number: str) -> bool:
    n_digits = _n_digits(number)
    if re.match(r"00[1-9]", number):
        return 10 <= n_digits <= 17
    if number.startswith("0"):
        return number[1] != "0" and 9 <= n_digits <= 12
    return 7 <= n_digits <= 15 and _PHONE_FORMS.fullmatch(number) is not None


def _without_extension(number: str) -> str:
    return re.split(r"\s?(?:x|ext)", number, maxsplit=1)[0]


def _n_digits(number: str) -> int:
    return len(re.sub(r"[^0-9]", "", number))
