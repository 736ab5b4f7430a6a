"""Find personal data and secrets in a text, with their positions and types. Patterns propose, checks decide.

A card must pass Luhn, an IBAN its country's length and mod 97, an IP address must parse, a number is a phone only by
its form or next to a word that says so. What one finder takes is hidden from the next. Dates, UUIDs, order numbers and
placeholders are left alone. Ids that are personal data themselves, such as an e-mail address in `customer_id`, are only
recognised; `pseudonyms.py` replaces them. `name_rules.py` and `names.py` find names.
"""

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache, partial
from typing import get_args

from schemas.curation_steps import RedactionType
from tasks.curate.redaction.addresses import find_addresses
from tasks.curate.redaction.announced import AnnouncedType, find_announced, kinds_announced
from tasks.curate.redaction.credentials import HIDDEN, find_known_secrets, find_named_secrets
from tasks.curate.redaction.emails import find_emails
from tasks.curate.redaction.national_ids import find_chinese_ids, find_lettered_ids, national_id
from tasks.curate.redaction.number_rows import FoundValue, NumberPart, read_rows
from tasks.curate.redaction.numbers import (
    OrderNumbers,
    card_digits,
    iban_end,
    is_phone,
    is_phone_alone,
    said_before,
    words_before,
)
from tasks.curate.redaction.scripts import as_read, is_read_otherwise
from tasks.curate.redaction.separators import ReplacedText, on_one_line, shown

Spans = Iterator[tuple[int, int, str]]
# Time is linear in the length of the text: a pattern starts once per run of characters (look-behinds) and does not
# backtrack (possessive quantifiers). If a pattern begins with a set of characters, and the look-behind follows it,
# Python skips all other characters several times faster.
_URL = re.compile(r"""(?i)(?<![\w@.])(?:[a-z][a-z0-9+.-]{1,20}://|www\.)[^\s<>"]*[^\s<>".,;:!?'()\[\]{}*_]""")
_IBAN = re.compile(r"[A-Za-z](?<![^\W_][A-Za-z])[A-Za-z][0-9]{2}(?=[ -]?[A-Za-z0-9])")
_IPV4 = re.compile(r"[0-9](?<![\w.][0-9])(?<![A-Za-z]-[0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?!\w|\.\w|-[A-Za-z])")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
# Global, local and multicast addresses, and those that embed IPv4. Source: IANA IPv6 address space registry.
_IPV6_IN_USE = tuple(
    map(ipaddress.ip_network, ("2000::/3", "fc00::/7", "fe80::/10", "ff00::/8", "::/8", "64:ff9b::/96"))
)
_MOST_GROUPS_OF_PROGRAMS = 5
_VERSION = frozenset(
    re.findall(
        r"\w+",
        """version versions firmware release releases build ver rev v upgrade upgraded upgrades update updated
    updates downgrade downgraded bump bumped install installed patch hotfix driver app jar library
    dependency""",
    )
)
_ADDRESS = frozenset(
    re.findall(
        r"\w+",
        """ip ips ipv4 address addresses host hosts server login dns cidr gateway subnet ping""",
    )
)
_CARD = re.compile(
    r"[0-9](?<![0-9A-Za-z][0-9])(?<![0-9][.,][0-9])(?:[0-9]{11,18}"
    r"|[0-9]{3}(?P<mark> ?[ ._/-] ?)(?:[0-9]{4}(?P=mark)[0-9]{4}(?P=mark)[0-9]{1,7}|[0-9]{6}[ ._/-]{1,3}[0-9]{4,5})"
    r"|(?P<single>[ ._/-])[0-9](?:(?P=single)[0-9]){10,17})(?![0-9A-Za-z])"
)
_PHONE = re.compile(
    r"[+(0-9](?<![\w#+][+(0-9])(?<!\w-[+(0-9])(?<![0-9][.,:/][+(0-9])"
    r"(?:(?<=\+)\s?\(?[0-9]|(?<=\()[0-9]|(?<=[0-9]))(?:[ .\-/()\u00a0]{0,3}[0-9]){6,16}+"
    r"(?:\s?(?:x|ext\.?|extension)\s?[0-9]{1,6})?(?!\w|[-:][0-9])"
)
_MAC = re.compile(
    r"(?<![\w:.-])(?:[0-9A-Fa-f]{2}(?P<mark>[:-])(?:[0-9A-Fa-f]{2}(?P=mark)){4}[0-9A-Fa-f]{2}"
    r"|[0-9A-Fa-f]{4}(?:\.[0-9A-Fa-f]{4}){2})(?![\w-]|[:.]\w)"
)
_MAC_CUE = re.compile(r"(?i)(?<![^\W_])(?:mac|wi-?fi|hardware|ethernet|ether|bluetooth)[^\n]{0,24}$")
_HEX_LETTER = re.compile("[A-Fa-f]")
_DAY = r"(?:0?[1-9]|[12][0-9]|3[01])"
_HARMLESS = re.compile(
    rf"[0-9](?<![0-9][0-9])(?:(?<=[12])(?:(?<=1)9|(?<=2)0)[0-9]{{2}}([-/.]){_DAY}\1{_DAY}"
    rf"|(?:(?<=[0-3])[0-9]|(?<=[1-9]))([-/.]){_DAY}\2(?:19|20)[0-9]{{2}})"
    r"(?:[T_-][0-9]{1,2}(?:[:.-][0-9]{2,3}){1,4})?(?![0-9])"
)
_UUID = re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")
_PLACEHOLDER = re.compile(r"\[[A-Z_]{2,16}_[0-9]{1,6}\]")
_SEVEN_DIGITS = re.compile("[0-9](?:[ ._+\\-/()\u00a0]{0,3}[0-9]){6}")
_DIGIT = re.compile(r"[0-9]")
_LINE_BREAK = re.compile(r"[\t\r\n]")
_LONG_NUMBERS = frozenset({"national_id", "card", "phone"})
_OVER_LINES = _LONG_NUMBERS | {"iban"}
_ANNOUNCED: set[AnnouncedType] = set(get_args(AnnouncedType))
_WITHOUT_DIGITS: set[AnnouncedType] = {"username"}
ID_COLUMNS = ("ticket_id", "customer_id", "thread_id")
LABEL_COLUMNS = ("product", "channel", "category", "priority")
_TYPES: tuple[RedactionType, ...] = ("email", "iban", "card", "phone")
# A number without separators is an id, although one in ten passes a card's checksum. For RE2 and for Python.
PERSONAL_ID = (
    "[@＠]"
    r"|^\s*[A-Za-z]{2}[0-9]{2}[ -]?[A-Za-z0-9]{4}[A-Za-z0-9 -]{7,}$"
    r"|^\s*[0-9]{4}([ .-])?[0-9]{4}[ .-][0-9]{4}[ .-][0-9]{1,7}\s*$"
    r"|^\s*[0-9]{4}[ .-][0-9]{6}[ .-][0-9]{5}\s*$"
    r"|^\s*(?:\+|00)[0-9][0-9 ()./-]{6,}$"
)
"""What an id must match to be personal; most ids do not, so `is_personal_id` need not see them."""
_PERSONAL_ID = re.compile(PERSONAL_ID)


def find_personal(
    text: str, types: Collection[RedactionType], *, region: str = "US", orders: OrderNumbers | None = None
) -> list[FoundValue]:
    """Find values of the given types, left to right, without overlaps.

    Args:
        text: The text.
        types: What to look for; names are not found here.
        region: ISO country of phone numbers without a country code.
        orders: Order numbers; with type `order_number` they are values, without it they are never another number.

    >>> text = "Mail Ann@Example.org about NB-48213 of 2026-06-01"
    >>> [(found.type, found.key) for found in find_personal(text, ["email", "phone"])]
    [('email', 'ann@example.org')]
    """
    view = shown(text)
    if view is None:
        return _find(text, types, region, orders)
    found = _find(view.text, types, region, orders)
    return [FoundValue(*view.original(each.start, each.end), each.type, each.key) for each in found]


def _find(text: str, types: Collection[RedactionType], region: str, orders: OrderNumbers | None) -> list[FoundValue]:
    found: list[FoundValue] = []
    rest = _hide(text, map(re.Match.span, _PLACEHOLDER.finditer(text))) if "[" in text else text
    other = is_read_otherwise(text)
    if other:  # first addresses that touch words of other scripts, then those with such letters themselves
        rest = _take_wordy_as_read(rest, types, found)
    for type_, finder in _WORDY:
        if type_ in types:
            rest = _take(finder, type_, rest, found)
    has_long_number = (orders is not None or not _LONG_NUMBERS.isdisjoint(types)) and _SEVEN_DIGITS.search(
        as_read(rest) if other else rest
    ) is not None
    if orders is not None and ("order_number" in types or has_long_number):
        numbers = list(orders.find(rest))
        rest = _hide(rest, (number[:2] for number in numbers))
        found += [FoundValue(*number[:2], "order_number", number[2]) for number in numbers if "order_number" in types]
    rest = as_read(rest) if other else rest
    lines = on_one_line(rest) if not _OVER_LINES.isdisjoint(types) else None
    if lines is not None:
        rest = _take_over_lines(rest, lines, types, region, found)
    has_digit = _DIGIT.search(rest) is not None
    for type_, finder in _NUMBERS:
        if type_ in types and (has_digit or type_ == "mac"):
            rest = _take(finder, type_, rest, found)
    announced = (_ANNOUNCED if has_digit else _WITHOUT_DIGITS) & set(types)
    for kind in sorted(announced & kinds_announced(rest)) if announced else ():
        rest = _take(partial(find_announced, kind=kind), kind, rest, found)
    if "national_id" in types:
        rest = _take(find_lettered_ids, "national_id", rest, found)
        rest = _take(find_chinese_ids, "national_id", rest, found) if has_long_number else rest
    if has_long_number and not _LONG_NUMBERS.isdisjoint(types):
        found += _long_numbers(_hide(rest, _harmless(rest)), types, region)
    return sorted(found)


def _take_wordy_as_read(rest: str, types: Collection[RedactionType], found: list[FoundValue]) -> str:
    for type_, finder in _WORDY:
        if type_ in types:
            hidden = _take(finder, type_, as_read(rest), found)
            rest = "".join(HIDDEN if mark == HIDDEN else each for mark, each in zip(hidden, rest, strict=True))
    return rest


def _take_over_lines(
    rest: str, lines: ReplacedText, types: Collection[RedactionType], region: str, found: list[FoundValue]
) -> str:
    """Take the numbers that a tab or a line break divides.

    Columns of a table look the same, so a number needs a checksum or a word before it.
    """
    text = _hide(lines.text, _harmless(lines.text))
    ibans = [FoundValue(start, end, "iban", key) for start, end, key in _ibans(text)] if "iban" in types else []
    text = _hide(text, (value[:2] for value in ibans))
    originals = []
    for start, end, type_, key in [*ibans, *_long_numbers(text, types, region, announced=True)]:
        first, last = lines.original(start, end)
        gap = _LINE_BREAK.search(rest, first, last)
        if gap is None:
            continue
        # A phone number that ends before the break is found on its line; what follows is not a part of it.
        if type_ == "phone" and is_phone_alone(rest[first : gap.start()].rstrip(), region=region):
            continue
        found.append(FoundValue(first, last, type_, key))
        originals.append((first, last))
    return _hide(rest, sorted(originals))


def _take(finder: Callable[[str], Spans], type_: RedactionType, rest: str, found: list[FoundValue]) -> str:
    """Add the finder's values, without overlaps; return the text with them hidden."""
    values = list(finder(rest))
    if not values:
        return rest
    place = 0
    spans = []
    for start, end, key in sorted(values):
        if start >= place:
            found.append(FoundValue(start, end, type_, key))
            spans.append((start, end))
            place = end
    return _hide(rest, spans)


def _hide(text: str, spans: Iterable[tuple[int, int]]) -> str:
    pieces = []
    place = 0
    for start, end in spans:
        pieces += [text[place:start], HIDDEN * (end - start)]
        place = end
    return "".join([*pieces, text[place:]]) if pieces else text


def _harmless(text: str) -> Iterator[tuple[int, int]]:
    """Yield dates, with the time after them, and UUIDs."""
    matches = [*_HARMLESS.finditer(text), *(_UUID.finditer(text) if text.count("-") > 3 else ())]
    place = 0
    for start, end in sorted(map(re.Match.span, matches)):
        if start >= place:
            place = end
            yield start, end


def _urls(text: str) -> Spans:
    for match in _URL.finditer(text):
        yield match.start(), match.end(), match[0]


def _ibans(text: str) -> Spans:
    taken = 0
    for match in _IBAN.finditer(text):
        end = iban_end(text, match.start())
        if end is not None and match.start() >= taken:
            taken = end
            yield match.start(), end, re.sub(r"[ -]", "", text[match.start() : end]).upper()


def _ip_addresses(text: str) -> Spans:
    matches = [*_IPV4.finditer(text), *(_IPV6.finditer(text) if text.count(":") > 1 else ())]
    for match in matches:
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        if address.version == 4:
            holds = not _is_version(text, match.start())
        else:
            holds = _DIGIT.search(match[0]) is not None and _is_ipv6(address)
        if holds:
            yield match.start(), match.end(), str(address)


def _is_ipv6(address: ipaddress.IPv6Address) -> bool:
    """Whether it is written in full, or of a range that is in use: `a1::b2` in source code is an address, too."""
    n_groups = sum(group != "0" for group in f"{address.compressed}".replace("::", ":").split(":"))
    return n_groups >= _MOST_GROUPS_OF_PROGRAMS or any(address in network for network in _IPV6_IN_USE)


def _is_version(text: str, start: int) -> bool:
    """Whether words before four numbers say that they are a version: "firmware 10.2.3.4", "upgrade to 2.9.10.2"."""
    words = words_before(text, start)
    return not _VERSION.isdisjoint(words) and _ADDRESS.isdisjoint(words)


def _mac_addresses(text: str) -> Spans:
    if text.count(":") < 5 and text.count("-") < 5 and text.count(".") < 2:
        return
    for match in _MAC.finditer(text):
        # Six pairs of digits with hyphens, or three groups with dots, are other numbers more often.
        if match["mark"] == ":" or _HEX_LETTER.search(match[0]) or _MAC_CUE.search(text, 0, match.start()):
            yield match.start(), match.end(), re.sub("[:.-]", "", match[0]).lower()


def _long_numbers(
    text: str, types: Collection[RedactionType], region: str, *, announced: bool = False
) -> Iterator[FoundValue]:
    """Ids, cards and phone numbers.

    Args:
        text: The text.
        types: What to look for.
        region: ISO country of phone numbers without a country code.
        announced: Ids only with a word before or after them, phone numbers only with a country code, or in a form of
            their own after a word such as "call".
    """

    def read(part: NumberPart) -> FoundValue | None:
        start, end, limit, n_others = part
        if "national_id" in types and (found := national_id(text, start, end, limit=limit, announced=announced)):
            return FoundValue(start, found[0], "national_id", found[1])
        if "card" in types and (match := _CARD.match(text, start, limit)) is not None and match.end() == end:
            digits = card_digits(text, start, end)
            if digits:
                return FoundValue(start, end, "card", digits)
        if "phone" not in types or (match := _PHONE.match(text, start, limit)) is None or match.end() < end:
            return None
        end = match.end()  # with an extension
        if not is_phone(text, start, end, region=region, n_others=n_others):
            return None
        if (
            announced
            and text[start] != "+"
            and not (said_before(text, start) == "phone" and is_phone_alone(text[start:end], region=region))
        ):
            return None
        return FoundValue(start, end, "phone", re.sub(r"[^0-9+]", "", text[start:end]))

    return read_rows(text, read)


_WORDY: tuple[tuple[RedactionType, Callable[[str], Spans]], ...] = (
    ("secret", find_known_secrets),
    ("url", _urls),
    ("email", find_emails),
    ("secret", find_named_secrets),
)
_NUMBERS: tuple[tuple[RedactionType, Callable[[str], Spans]], ...] = (
    ("iban", _ibans),
    ("ip", _ip_addresses),
    ("mac", _mac_addresses),
    ("address", find_addresses),
)


@lru_cache(maxsize=4096)
def is_personal_id(value: str) -> bool:
    """Return whether an id is an e-mail address, an IBAN, a card number or an international phone number.

    >>> [is_personal_id(value) for value in ("ann@example.org", "C-1042", "4158732700", "+1 415-873-2700")]
    [True, False, False, True]
    """
    return _PERSONAL_ID.search(value) is not None and bool(find_personal(value, _TYPES))
