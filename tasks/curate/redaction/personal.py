"""Find personal data and secrets in a text: where, and of which type. Patterns propose, checks decide.

A card must pass Luhn, an IBAN its country's length and mod 97, an address must parse, a number is a phone only by its
form or beside a word that says so. What one finder took is hidden from the next. Dates, UUIDs and order references are
left alone. Names and postal addresses are not found: no pattern can.

It knows nothing of tables. Called by `tasks/curate/redact.py`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from schemas.curation_steps import RedactionType
from tasks.curate.redaction.number_kinds import card_digits, iban_end, looks_like_phone

_HIDDEN = "\ue000"  # stands for a character already taken: no pattern below matches it
_DIGIT = re.compile(r"[0-9]")


class Found(NamedTuple):
    """One value: characters [start, end) of the text, its type, and the form in which equal values are equal."""

    start: int
    end: int
    type: RedactionType
    key: str


# Look-behinds let a pattern start once per run of characters and possessive quantifiers never give back: the time
# stays linear in the length of the text.
_KNOWN_SECRET = re.compile(
    r"""
    -----BEGIN\ (?:[A-Z]+\ )*PRIVATE\ KEY-----(?:
        .{0,10000}?-----END\ (?:[A-Z]+\ )*PRIVATE\ KEY-----
      | (?:\s+[A-Za-z0-9+/=]{16,}+)*+                               # cut off before its end
    )
  | (?<![\w-])(?:
        (?:AKIA|ASIA)[0-9A-Z]{16}\b                                # AWS access key id
      | eyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]*+                         # JSON web token
      | (?:sk|pk|rk)[-_][\w-]{16,}+                                # OpenAI, Stripe
      | (?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AIza)[\w-]{16,}+   # GitHub, GitLab, Slack, Google
    )""",
    re.VERBOSE | re.DOTALL,
)
_NAMED_SECRET = re.compile(
    r"""(?i)\b(?:bearer\s+|(?:password|passwd|pwd|passcode|passwort|token|secret|api[_ -]?key|access[_ -]?key)
    ["']?\s*(?:[:=]|\bis\b)\s*["']?)(?P<value>[^\s"',;<>\[\]{}]{6,}+)""",
    re.VERBOSE,
)
_NO_SECRET = re.compile(rf"{_HIDDEN}|^[A-Za-z.]*\([A-Za-z_.]*$")  # taken already, or a call in source code
_URL = re.compile(r"""(?i)(?<![\w@.])(?:[a-z][a-z0-9+.-]{1,20}://|www\.)[^\s<>"]*[^\s<>".,;:!?'()\[\]{}*_]""")
_AT = r"(?:[@＠]|\s?[(\[]\s?at\s?[)\]]\s?)"
_DOT = r"(?:\.|\s?[(\[]\s?dot\s?[)\]]\s?)"
_EMAIL = re.compile(
    rf"(?i)(?<![\w.+%-])\w[\w.+%'-]*+{_AT}(?:[\w-]++{_DOT})+(?:[a-z]{{2,}}|xn--[\w-]+|[^\W\d_a-z]{{2,}})"
)
_IBAN = re.compile(r"(?<![^\W_])[A-Za-z]{2}[0-9]{2}(?=[ -]?[A-Za-z0-9])")
_IP = re.compile(
    r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\w|\.[0-9])"
    r"|(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])"
)
_VERSION = re.compile(r"(?i)\b(?:versions?|firmware|release|build|ver|rev|v)\W{0,3}$")
_CARD = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9][.,])"
    r"(?:[0-9]{4}([ .-])[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}|[0-9]{4}[ .-][0-9]{6}[ .-][0-9]{4,5}|[0-9]{12,19})"
    r"(?![0-9A-Za-z])"
)
_PHONE = re.compile(
    r"(?<![\w#+])(?<!\w-)(?<![0-9][.,:/])(?:\+\s?)?\(?[0-9](?:[ .\-/()\u00a0]{0,3}[0-9]){6,16}+"
    r"(?:\s?(?:x|ext\.?|extension)\s?[0-9]{1,6})?(?!\w|-[0-9])"
)
_DAY = r"(?:0?[1-9]|[12][0-9]|3[01])"
_HARMLESS = re.compile(
    rf"(?<![0-9])(?:(?:19|20)[0-9]{{2}}([-/.]){_DAY}\1{_DAY}|{_DAY}([-/.]){_DAY}\2(?:19|20)[0-9]{{2}})"
    r"(?:[T_-][0-9]{1,2}(?:[:.-][0-9]{2,3}){1,4})?(?![0-9])"
    r"|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"
)


def find_personal(text: str, types: Collection[RedactionType]) -> list[Found]:
    """Values of the given types, left to right, never overlapping.

    >>> text = "Mail Ann@Example.org about NB-48213 of 2026-06-01"
    >>> [(found.type, found.key) for found in find_personal(text, ["email", "phone"])]
    [('email', 'ann@example.org')]
    """
    found: list[Found] = []
    rest = text
    for type_, finder in _FINDERS:
        if type_ not in types:
            continue
        if type_ in _NUMERIC:
            if not _DIGIT.search(rest):
                continue
            rest = _HARMLESS.sub(lambda match: _HIDDEN * len(match[0]), rest)
        taken = [Found(start, end, type_, key) for start, end, key in finder(rest)]
        for start, end, _, _ in taken:
            rest = rest[:start] + _HIDDEN * (end - start) + rest[end:]
        found += taken
    return sorted(found)


Spans = Iterator[tuple[int, int, str]]


def _known_secrets(text: str) -> Spans:
    for match in _KNOWN_SECRET.finditer(text):
        yield match.start(), match.end(), match[0]


def _named_secrets(text: str) -> Spans:
    for match in _NAMED_SECRET.finditer(text):
        value = match["value"].rstrip(".!?)")
        if len(value) >= 6 and re.search(r"[^A-Za-z'’.-]", value) and not _NO_SECRET.search(value):
            yield match.start("value"), match.start("value") + len(value), value


def _urls(text: str) -> Spans:
    for match in _URL.finditer(text):
        yield match.start(), match.end(), match[0]


def _emails(text: str) -> Spans:
    if "@" in text or "＠" in text or "at" in text.lower():
        for match in _EMAIL.finditer(text):
            yield match.start(), match.end(), re.sub(r"\s", "", match[0]).casefold()


def _ibans(text: str) -> Spans:
    taken = 0
    for match in _IBAN.finditer(text):
        end = iban_end(text, match.start())
        if end is not None and match.start() >= taken:
            taken = end
            yield match.start(), end, re.sub(r"[ -]", "", text[match.start() : end]).upper()


def _addresses(text: str) -> Spans:
    for match in _IP.finditer(text):
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        is_version = address.version == 4 and _VERSION.search(text[max(0, match.start() - 16) : match.start()])
        if not is_version and _DIGIT.search(match[0]):
            yield match.start(), match.end(), str(address)


def _cards(text: str) -> Spans:
    for match in _CARD.finditer(text):
        digits = card_digits(match[0])
        if digits:
            yield match.start(), match.end(), digits


def _phones(text: str) -> Spans:
    for match in _PHONE.finditer(text):
        start = looks_like_phone(text, match.start(), match.end())
        if start is not None:
            yield start, match.end(), re.sub(r"[^0-9+]", "", text[start : match.end()])


_FINDERS: tuple[tuple[RedactionType, Callable[[str], Spans]], ...] = (
    ("secret", _known_secrets),
    ("url", _urls),
    ("email", _emails),
    ("secret", _named_secrets),
    ("iban", _ibans),
    ("ip", _addresses),
    ("card", _cards),
    ("phone", _phones),
)
_NUMERIC = frozenset({"card", "phone"})
