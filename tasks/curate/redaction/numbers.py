"""Decide what a number is: a payment card, an IBAN, a phone number, or one of the user's own order numbers.

By form and checksum, by the numbering plans, and by words such as "call", "order" or "SSN", of which the nearest one
before the number counts (`number_words.yaml`). Order numbers are found by the user's patterns, with RE2 as in DuckDB:
linear time, the same meaning everywhere.

python-stdnum, phonenumbers and pyarrow are imported at the first candidate that needs them.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from schemas.errors import ConfigError
from schemas.spec import Spec
from tasks.curate.redaction.scripts import CARD, NATIONAL, PHONE, REFERENCE
from tasks.curate.redaction.words import read_words

Said = Literal[
    "phone", "reference", "national", "id_card", "us", "gb", "de", "fr", "es", "it", "nl", "br", "in", "pl", "se"
]  # fmt: skip
Words = Annotated[str, Field(pattern=r"^[^\W\d_]+( [^\W\d_]+)?(, [^\W\d_]+( [^\W\d_]+)?)*$")]
"""Cues of one or two words, separated by commas."""
Reading = Annotated[str, Field(pattern=r"^[a-z]{2}_?\.[a-z]+ [a-z]+( alone)?$")]
"""Module of python-stdnum, the cue, and `alone` if the form is enough evidence without a cue."""


class NumberWords(Spec):
    """The file; its comments describe each section."""

    says: dict[Said, Words]
    links: Words
    number: Words
    card: Words
    shapes: dict[Annotated[str, Field(pattern=r"^[9 .+-]+$")], tuple[Reading, ...]]

    def cues(self) -> dict[str, Said]:
        """Map each cue to what it says."""
        return {cue: said for said, cues in self.says.items() for cue in cues.split(", ")}


NUMBER_WORDS = read_words("number_words", NumberWords)


_LONGEST_CUE = 32
"""Characters of a word of another script, or of several that touch, as cue letters of `scripts.py`."""
_SAYS = NUMBER_WORDS.cues()
_OF_OTHER_SCRIPTS: dict[str, Said] = {PHONE: "phone", REFERENCE: "reference", NATIONAL: "national"}
_SAYS |= {letter * n: said for letter, said in _OF_OTHER_SCRIPTS.items() for n in range(1, _LONGEST_CUE + 1)}
_LINKS = frozenset(NUMBER_WORDS.links.split(", "))
_NUMBER = frozenset(NUMBER_WORDS.number.split(", "))
_CARD_WORDS = {*NUMBER_WORDS.card.split(", "), *(CARD * n for n in range(1, _LONGEST_CUE + 1))}
_WORD = re.compile(r"[0-9]+(?:[.,:][0-9]+)*|[^\W_]+")
_REACH = 64
"""Characters before a number in which cues are looked for."""
_REACH_WORDS = 5
_SENTENCE_END = re.compile(r"(?i)(?<!\bno)(?<!\bnr)(?<!\bref)(?<!\bart)(?<!\bn)[.!?;]\s")
_IS_SUBJECT = re.compile(  # "regarding my case: 415-873-2700" says what to talk about, "case: 4711" says which case
    r"(?i)(?<!\w)(?:about|regarding|concerning|re|wegen|zu|betreffend|concernant|sobre)\s(?:[^\W\d_]+\s)?[^\W\d_]+$"
)
_NOTHING_AFTER = re.compile(r"\.?[ \t]*(?:$|\n\s*(?![0-9\s]))")
_PHONE_AFTER = re.compile(
    r"(?i)\W*(?:(?:(?:is|was|my|our|the|work|home)\W+){0,3}(?:phone|mobile|cell|telephone|fax|office)\b"
    r"|is\s(?:my|our)\snumber\b(?!\s(?:for|of|on|at|with|in)\b)|is\swhere\s(?:you|to)\b"
    r"|is\sthe\s(?:best\s)?number\sto\s(?:call|reach|ring|dial|text)\b)"
)
_IN_SIGNATURE = re.compile(
    r"(?:^|\||,)[ ]*(?:Ph|Mob|[TM])[ ]?[.:][ ]*$|^[^\W\d_]+(?:[ ][^\W\d_]+){1,3}[ ]?\|[^0-9]*\|[ ]*$"
)
"""What precedes a number on its line: "M: 4158732700", "Tom Baker | Baker Ltd | 4158732700"."""
_ANNOUNCE = _NUMBER | {"here", "below", "following", "this", "follows"}
"""Words of a line whose value is on the next one."""
_ID_AFTER = re.compile(r"(?i)\W*(?:is|was|=)\W+(?:(?:my|his|her|our|the|their)\W+)?")

# Cards and IBANs.
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
_DOUBLED = str.maketrans("0123456789", "0246813579")
"""Each digit -> the sum of the digits of its double."""
_NO_CARDS = frozenset({"order", "orders", "tracking", "invoice", "parcel", "shipment", "serial", "imei", "ean", "isbn"})

# Phone numbers.
_FORMS = re.compile(
    r"""
    (?:1[ .-]?)?(?:\([2-9][0-9]{2}\)[ ]?|[2-9][0-9]{2}[ .-])[0-9]{3}[ .-][0-9]{4}    # North America
  | [0-9]{2}(?:([ .-])[0-9]{2})(?:\1[0-9]{2}){2,3}                                   # pairs: Denmark, France
  | [5-9][0-9]{2}[ ][0-9]{3}[ ](?!000)[0-9]{3}                                       # Spain, Poland
  | 9[0-9][ ][0-9]{3}[ ][0-9]{2}[ ][0-9]{2} | [6-9][0-9]{2}(?:[ ][0-9]{2}){3}        # Spain
  | \([0-9]{1,5}\)[0-9 .\-/\u00a0]+                                                  # area code in brackets
    """,
    re.VERBOSE,
)
_DIGITS = re.compile(r"[^0-9]")
_EXTENSION = re.compile(r"\s?(?:x|ext)")
_IN_GROUPS = re.compile(r"[0-9]{2}[^0-9]+[0-9]{2}")
_FOUR_NUMBERS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}$")
_DECIMALS = re.compile(r"[0-9]+\.[0-9]+(?:[ \u00a0]+[0-9]+\.[0-9]+)+$")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:([ .])[0-9]{3})(?:\1[0-9]{3})*")
_SINGLE_DIGIT = re.compile(r"[0-9] [0-9](?: |$)")
_PAIRS = re.compile(r"[1-9][0-9]?(?: [0-9]{1,2})*")
_MOST_OTHERS, _MOST_OTHERS_OF_PAIRS = 12, 6
_FEWEST_DIGITS, _MOST_DIGITS, _MOST_NATIONAL, _MOST_ANNOUNCED = 7, 15, 11, 12

# Order numbers: marks around a match in the text, and a replacement for these marks in the text itself.
_BEGIN, _END, _OTHER = "\ue001", "\ue002", "\ue003"
_WITHOUT_MARKS = str.maketrans({_BEGIN: _OTHER, _END: _OTHER})


def said_before(text: str, start: int) -> Said | None:
    """What the nearest cue before `start`, with at most four words between, says about a number there.

    >>> said_before("call me at 9472 7916", 11), said_before("call about order 9472 7916", 17)
    ('phone', 'reference')
    """
    words = words_before(text, start)
    for place in range(len(words) - 1, -1, -1):
        said = _SAYS.get(" ".join(words[max(0, place - 1) : place + 1])) or _SAYS.get(words[place])
        if said is not None:
            return said
    return None


def _said_of_phone(text: str, start: int, *, in_groups: bool) -> Said | None:
    """As `said_before`, but a word such as "order" counts only for a number in its own sentence.

    For a number in groups only words such as "number" may come between: "order 415-873-2700" is a reference, "the order
    is late 415-873-2700" is not.
    """
    line = _line_before(text, start).lower()
    words = list(_WORD.finditer(line))[-_REACH_WORDS:]
    for place in range(len(words) - 1, -1, -1):
        pair = " ".join(word[0] for word in words[max(0, place - 1) : place + 1])
        said = _SAYS.get(pair) or _SAYS.get(words[place][0])
        if said == "reference" and (
            _SENTENCE_END.search(line, words[place].end())
            or (in_groups and not _leads_to_number([word[0] for word in words[place + 1 :]]))
            or (in_groups and _IS_SUBJECT.search(line, 0, words[place].end()) and line[words[place].end() :] == ": ")
        ):
            continue
        if said is not None:
            return said
    return None


def _leads_to_number(words: list[str]) -> bool:
    """Whether these words after one such as "order" announce its number: "number of the lamp is", "no", "and 4711"."""
    return all(word in _LINKS or word[0].isdigit() for word in words) or (words[0] in _NUMBER)


def says_card(text: str, start: int) -> bool:
    """Whether a word for a payment card precedes `start`, with at most four words between."""
    return not _CARD_WORDS.isdisjoint(words_before(text, start))


def said_after(text: str, end: int) -> Said | None:
    """What the words right after `end` say about the number: "9472 7916 is my mobile", "460-89-9847 is my SSN".

    >>> said_after("460899847 is my SSN", 9)
    'us'
    """
    after = text[end : end + 40]
    if _PHONE_AFTER.match(after):
        return "phone"
    gap = _ID_AFTER.match(after)
    words = _WORD.findall(after[gap.end() :].lower())[:2] if gap is not None else []
    return _SAYS.get(" ".join(words)) or (_SAYS.get(words[0]) if words else None)


def words_before(text: str, start: int) -> list[str]:
    """The last five words before `start` on its line, in lower case; of the line above if that ends in a colon."""
    return _WORD.findall(_line_before(text, start).lower())[-_REACH_WORDS:]


def _line_before(text: str, start: int) -> str:
    before, _, line = text[max(0, start - _REACH) : start].rpartition("\n")
    if not line.strip() and before.rstrip().endswith(":"):
        return before.rstrip().rpartition("\n")[2]
    return line


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the rest. Source: ISO/IEC 7812-1 annex B.

    >>> passes_luhn("4111111111111111"), passes_luhn("4111111111111112")
    (True, False)
    """
    return (sum(map(int, digits[::-2])) + sum(map(int, digits[-2::-2].translate(_DOUBLED)))) % 10 == 0


def card_digits(text: str, start: int, end: int) -> str:
    """The digits of the payment card number in [start, end), '' if it is not one by issuer, length and Luhn.

    After a word such as "card" any issuer counts. Cards of 12 and 13 digits exist, but article numbers (EAN) of that
    length are far more frequent: after a word such as "article" they are not cards. Nor is a longer number without
    groups right after "order" or "tracking".
    """
    digits = _DIGITS.sub("", text[start:end])
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
    """End of the IBAN that begins at `start`, grouped by spaces or hyphens or not at all; None if there is none.

    >>> iban_end("GB82 WEST 1234 5698 7654 32 please", 0)
    27
    """
    length = _IBAN_LENGTHS.get(text[start : start + 2].upper())
    match = _iban_of(length).match(text, start) if length is not None else None
    return match.end() if match is not None and _is_iban(match[0]) else None


@cache
def _iban_of(length: int) -> re.Pattern[str]:
    """So many letters and digits, with a space or a hyphen between any two, and none after them."""
    return re.compile(rf"[A-Za-z0-9](?:[ -]?[A-Za-z0-9]){{{length - 1}}}(?![A-Za-z0-9])")


def _is_iban(written: str) -> bool:
    from stdnum import iban

    # Not `check_country`: with a wrong bank code it is still personal.
    return bool(iban.is_valid(written, check_country=False))


def is_phone(text: str, start: int, end: int, *, region: str, n_others: int = 0) -> bool:
    """Whether [start, end) is a phone number.

    A number is a phone by its form (+49 ..., 0044 ..., (905) 674-3793, 0151 ...), if written in groups or alone on its
    line and valid in `region`, or, with 7 to 12 digits, next to a word such as "call" or "mobile". Right after a word
    such as "order" it is not, unless it has + or a grouped area code.

    Args:
        text: The text.
        start: First character, a digit, + or (.
        end: After the last character, which may be an extension.
        region: ISO country of numbers without a country code.
        n_others: Numbers of two or more digits in the same row that are left out. With any, a phone number has no
            single digits, and a word such as "call" is not enough for pairs; a row with many is a table.
    """
    number = text[start:end]
    if n_others and number[0] != "+":
        if n_others > _MOST_OTHERS or _SINGLE_DIGIT.search(number):
            return False
        if n_others > _MOST_OTHERS_OF_PAIRS and _PAIRS.fullmatch(number):
            return False
    if number[0] == "+":
        return _is_international(_without_extension(number))
    said = _said_of_phone(text, start, in_groups=_IN_GROUPS.search(number) is not None)
    if (_FOUR_NUMBERS.match(number) and said != "phone") or _DECIMALS.match(number):
        return False  # an address, a version or a load average
    if said is not None and said != "phone":
        number = _without_extension(number)
        is_dialled = number.startswith("00") or _n_digits(number) <= _MOST_NATIONAL
        in_groups = number.lstrip("(").startswith("0") and not number.isdigit()
        return is_dialled and in_groups and _has_form(number)
    announced = said == "phone" or said_after(text, end) == "phone"
    if (
        announced
        and _FEWEST_DIGITS <= _n_digits(_without_extension(number)) <= _MOST_ANNOUNCED
        and not (n_others and _PAIRS.fullmatch(number))
    ):
        return True
    if is_phone_alone(number, region=region):
        return True
    return number.isdigit() and _is_valid(number, region) and _is_a_line(text, start, end)


def _is_a_line(text: str, start: int, end: int) -> bool:
    """Whether nothing else is on the line or in the sentence of the number, as in a signature.

    Not after a question ("Where is order? 4158732700"), a heading ("Order number") or in a column of numbers.
    """
    if not _NOTHING_AFTER.match(text, end):
        return False
    before = text[max(0, start - _REACH) : start].rstrip(" ")
    line = before.rstrip().rpartition("\n")[2]
    words = _WORD.findall(line.lower())
    if not before.endswith("\n"):
        if before.endswith((".", "!")) and len(before) > 1:
            return True
        return _IN_SIGNATURE.search(line) is not None and all(_SAYS.get(word) != "reference" for word in words)
    if not words or words[-1][0].isdigit():
        return False
    announces = not _ANNOUNCE.isdisjoint(words)
    if line.endswith((".", "!")) and not announces:
        return True
    return all(_SAYS.get(word) != "reference" for word in (words if announces else words[-3:]))


def is_phone_alone(number: str, *, region: str) -> bool:
    """Whether the way of writing is evidence enough: 0151 2345678, (905) 674-3793, or groups dialled in `region`."""
    number = _without_extension(number)
    return _has_form(number) or _is_valid_in(number, region)


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

    # The trunk zero in brackets is written but not dialled: +49 (0)151.
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
    return _is_valid(number, region)


def _is_valid(number: str, region: str) -> bool:
    import phonenumbers

    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(number, region)))
    except phonenumbers.NumberParseException:
        return False


def _without_extension(number: str) -> str:
    extension = _EXTENSION.search(number)
    return number if extension is None else number[: extension.start()]


def _n_digits(number: str) -> int:
    return len(_DIGITS.sub("", number))


class OrderNumbers:
    """The patterns of `order_numbers`, joined.

    Raises:
        ConfigError: a pattern is not RE2, or matches the empty text.

    >>> list(OrderNumbers((r"NB-[0-9]{5}", r"\\b7[0-9]{9}\\b")).find("NB-48213 or 7123456789, not NB-482"))
    [(0, 8, 'NB-48213'), (12, 22, '7123456789')]
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        for pattern in patterns:
            _check(pattern)
        self.pattern = "|".join(f"(?:{pattern})" for pattern in patterns)

    def find(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield the spans of the order numbers, left to right, each as it is written."""
        if not text.isascii():
            text = text.translate(_WITHOUT_MARKS)
        first, *pieces = _marked(text, self.pattern).split(_BEGIN)
        place = len(first)
        for piece in pieces:
            number, _, between = piece.partition(_END)
            yield place, place + len(number), number
            place += len(number) + len(between)


@cache
def order_numbers(patterns: tuple[str, ...]) -> OrderNumbers | None:
    """Check and join the patterns, once per process; None if there are none."""
    return OrderNumbers(patterns) if patterns else None


def _marked(text: str, pattern: str) -> str:
    marked = pc.replace_substring_regex(pa.scalar(text), pattern=pattern, replacement=rf"{_BEGIN}\0{_END}")
    return str(marked.as_py())


def _check(pattern: str) -> None:
    where = "curate.redact.order_numbers"
    try:
        matches_nothing = pc.match_substring_regex(pa.scalar(""), pattern=pattern).as_py()
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"`{pattern}` is not an RE2 pattern: {error}",
            code="TG0190",
            where=where,
            hint=r"RE2 has no look-around and no back-references; `\b` marks the edge of a word: `\bNB-[0-9]{5}\b`",
        ) from None
    if matches_nothing:
        raise ConfigError(
            f"`{pattern}` matches the empty text, so it would match everywhere",
            code="TG0190",
            where=where,
            hint="require at least one character: `[0-9]+` instead of `[0-9]*`",
        )
