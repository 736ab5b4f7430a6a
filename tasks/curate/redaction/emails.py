"""Find e-mail addresses, also those with a word for @ or for a dot: "ann (at) example [dot] org", "li arroba uol.com".

A bracketed word is evidence enough. Words such as "at" are common, so between blanks they need a mail host, or a name
that looks like one: "ann.lee at example dot org", but not "ordered at example dot com".
"""

import re
from collections.abc import Iterator

from schemas.spec import Spec
from tasks.curate.redaction.words import LowerWords, any_of, read_words


class _EmailWords(Spec):
    """The file; its comments describe each section."""

    at: LowerWords
    maybe: LowerWords
    dot: LowerWords
    underscore: LowerWords
    before: LowerWords
    ends: LowerWords
    hosts: LowerWords


_WORDS = read_words("email_words", _EmailWords)
_SURE, _MAYBE, _DOTS = any_of(_WORDS.at), any_of(_WORDS.maybe), any_of(_WORDS.dot)
_HOSTS, _ENDS = any_of(_WORDS.hosts), any_of(_WORDS.ends)
_ANY_AT = rf"[(\[{{]\s?(?:{_SURE}|{_MAYBE})\s?[)\]}}]"
_ANY_DOT = rf"[(\[{{]\s?(?:{_DOTS})\s?[)\]}}]"
_AT = rf"(?:[@＠]|\s?{_ANY_AT}\s?)"
_DOT = rf"(?:\.|\s?{_ANY_DOT}\s?)"
_EMAIL = re.compile(
    rf"(?i)(?<![\w.+%-])\w[\w.+%'-]{{0,255}}+(?:\s?{_ANY_DOT}\s?[\w.+%'-]{{1,64}}+){{0,4}}{_AT}(?:[\w-]++{_DOT})+"
    r"(?:[a-z]{2,}|xn--[\w-]+|[^\W\d_a-z]{2,})"
)
_JOINT = rf"(?:\.|\s(?:{_DOTS})\s|{_ANY_DOT})"
_IN_WORDS = re.compile(
    rf"(?i)(?<![\w.+%-])(?P<name>\w[\w+%'-]{{0,64}}+(?:(?:{_JOINT}|\s(?:{any_of(_WORDS.underscore)})\s)\w[\w+%'-]{{0,64}}+){{0,4}})"
    rf"\s(?:(?P<sure>{_SURE})|{_MAYBE})\s(?P<host>(?:[\w-]{{1,63}}+{_JOINT}){{1,4}}?(?:{_ENDS})(?!\w|{_JOINT}(?:{_ENDS})(?!\w)))"
)
_AT_WORD = re.compile(rf"(?i){_ANY_AT}|\s(?:{_SURE}|{_MAYBE})\s[\w-]{{1,63}}(?:\.|{_ANY_DOT}|\s(?:{_DOTS})\s)\w")
_LIKE_A_NAME = re.compile(rf"(?i)[0-9_]|{_JOINT}")
_HOST = re.compile(rf"(?i)(?:{_HOSTS})(?!\w)")
_BEFORE = re.compile(rf"(?i)(?:^|[\n:;(]\s?|(?<![^\W_])(?:{any_of(_WORDS.before)})\s?[:=]?\s)$")
_LONGEST_BEFORE = 16
GATE = (
    "[@＠]",
    rf"[(\[{{](?s:.?)(?i:{_SURE}|{_MAYBE})(?s:.?)[)\]}}]",
    rf"[^A-Za-z0-9](?i:{_SURE}|{_MAYBE})[^A-Za-z0-9](?:[A-Za-z0-9_.-]|[^\x00-\x7f])+"
    rf"(?:\.(?i:{_ENDS})(?:[^A-Za-z0-9]|$)|[^A-Za-z0-9](?i:{_DOTS})[^A-Za-z0-9])",
)
"""For RE2."""


def find_emails(text: str) -> Iterator[tuple[int, int, str]]:
    """Spans of e-mail addresses, each in lower case with @ and dots.

    >>> text = "Ann (at) x.org, dave dot lee at gmail dot com, ordered at amazon dot com"
    >>> [key for _, _, key in find_emails(text)]
    ['ann@x.org', 'dave.lee@gmail.com']
    """
    in_words = _AT_WORD.search(text) is not None
    if in_words or "@" in text or "＠" in text:
        for match in _EMAIL.finditer(text):
            yield match.start(), match.end(), _as_address(match[0])
    if in_words:
        for match in _IN_WORDS.finditer(text):
            if _holds(match):
                yield match.start(), match.end(), _as_address(match[0])


def _holds(match: re.Match[str]) -> bool:
    if match["sure"]:
        return True
    like_a_name = _LIKE_A_NAME.search(match["name"]) is not None
    if _HOST.match(match["host"]):
        start = match.start()
        return like_a_name or _BEFORE.search(match.string, max(0, start - _LONGEST_BEFORE), start) is not None
    return like_a_name


_WORD_AT = re.compile(rf"(?i)\s?{_ANY_AT}\s?|\s(?:{_SURE}|{_MAYBE})\s|＠")
_WORD_DOT = re.compile(rf"(?i)\s?{_ANY_DOT}\s?|\s(?:{_DOTS})\s")
_WORD_UNDERSCORE = re.compile(rf"(?i)\s(?:{any_of(_WORDS.underscore)})\s")


def _as_address(written: str) -> str:
    address = _WORD_UNDERSCORE.sub("_", _WORD_DOT.sub(".", _WORD_AT.sub("@", written)))
    return re.sub(r"\s", "", address).casefold()
