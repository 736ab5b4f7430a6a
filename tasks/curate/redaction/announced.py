"""Find what words announce: dates of birth, documents, bank accounts, postcodes, user names, one-time codes.

A value counts right after its cue, with nothing but words such as "number is" between: "passport no. C01X0006H", but
not "the passport holder, article 4711". Cues, links and months are in `announced.yaml`.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

from schemas.curation_steps import RedactionType
from schemas.spec import Spec
from tasks.curate.redaction.numbers import card_digits, words_before
from tasks.curate.redaction.words import LowerWords, any_of, read_words

AnnouncedType = Literal["birth_date", "passport", "driving_licence", "account", "secret", "address", "username"]


class _AnnouncedWords(Spec):
    """The file; its comments describe each section."""

    links: LowerWords
    verbs: LowerWords
    cues: dict[AnnouncedType, LowerWords]
    not_after: dict[AnnouncedType, LowerWords]
    capitals: LowerWords
    networks: LowerWords
    months: LowerWords
    no_passwords: LowerWords


WORDS = read_words("announced", _AnnouncedWords)
_STEM = 4
"""Characters of a cue that are searched for before its pattern is tried: `str.find` is many times faster."""
_WORD = re.compile(r"[^\W_]+")
_CODE_FIRST_WORDS = {"code", "pass", "pin", "otp", "use", "ente", "type"}
_BETWEEN = r"[\s:=#()\[\"'“”„«»,/|*_>–—-]"


_any_cue = partial(any_of, space="[ ._-]{0,2}", apostrophe="['’]?")
_LINK = any_of(WORDS.links)
_GAP = rf"(?:(?<=no|nr)\.)?(?:{_BETWEEN}{{1,6}}+(?:(?:no|nr|num|n)\.|(?:{_LINK})(?![^\W_]))){{0,7}}+{_BETWEEN}{{0,6}}+"
_MONTH = any_of(WORDS.months)
_NUMBER_OF_DAY = r"(?:0?[1-9]|[12][0-9]|3[01])"
_YEAR = r"(?:19|20)[0-9]{2}"
_DATE = (
    rf"{_YEAR}(?P<iso>[-/.]){_NUMBER_OF_DAY}(?P=iso){_NUMBER_OF_DAY}"
    rf"|{_NUMBER_OF_DAY}(?P<mark>[-/.] ?){_NUMBER_OF_DAY}(?P=mark)(?:{_YEAR}|[0-9]{{2}})"
    rf"|{_NUMBER_OF_DAY}(?:st|nd|rd|th|er|\.)?[ -]?(?:of |de )?(?:{_MONTH})\.?,?[ -]?(?:de |del )?"
    rf"(?:{_YEAR}|[0-9]{{2}})"
    rf"|(?:{_MONTH})\.? ?{_NUMBER_OF_DAY}(?:st|nd|rd|th)?,? {_YEAR}"
)
_VALUES: dict[AnnouncedType, re.Pattern[str]] = {
    # Case does not matter: the patterns run over the text in lower case.
    "birth_date": re.compile(rf"(?:{_DATE})(?![^\W_])"),
    "passport": re.compile(r"(?=(?:[a-z]{0,4}[0-9]){5})[a-z0-9]{7,10}(?![^\W_]|-[a-z0-9])"),
    "driving_licence": re.compile(r"(?=(?:[a-z]{0,5}-?[0-9]){4})[a-z0-9](?:-?[a-z0-9]){6,18}(?![^\W_]|-[a-z0-9])"),
    "account": re.compile(r"(?:[0-9](?:[ -]?[0-9]){5,19})(?:[a-z](?![^\W_]))?(?![^\W_]|-[0-9]|[.,:/][0-9])"),
    "secret": re.compile(r"(?:g-)?(?:[0-9]{3}[ -][0-9]{3}|[0-9]{4,8})(?![^\W_]|[-.,:/][0-9])"),
    "address": re.compile(
        r"(?:[a-z]{1,2}[0-9][0-9a-z]? ?[0-9][a-z]{2}|[0-9]{4} ?[a-z]{2}|[0-9]{4}-[0-9]{3}|[0-9]{5}-[0-9]{3,4}"
        r"|(?:[a-z]{1,2}-)?[0-9]{5})(?![^\W_]|[-.,:/][0-9])"
    ),
    "username": re.compile(r"@?[^\W_](?:[\w.+-]{1,38}\w)(?![\w@])"),
}
_CUES = {
    kind: re.compile(rf"(?<![^\W_])(?P<cue>{_any_cue(words)})(?![^\W_])(?P<gap>{_GAP})")
    for kind, words in WORDS.cues.items()
}
_STEMS = {
    kind: tuple(
        sorted({words.split(" ")[0].replace("'", " ")[:_STEM].split(" ")[0] for words in all_words.split(", ")})
    )
    for kind, all_words in WORDS.cues.items()
}


def _prefixes(cue: str) -> Iterator[str]:
    """Beginnings of words, one of which is in every text with the cue: its longest word, or all in one word."""
    parts = _WORD.findall(cue)
    yield max(parts, key=len)[:_STEM]
    yield "".join(parts)[:_STEM]


_KINDS_BY_PREFIX: dict[str, set[AnnouncedType]] = {}
for _kind, _words in WORDS.cues.items():
    for _prefix in {prefix for cue in _words.split(", ") for prefix in _prefixes(cue)}:
        _KINDS_BY_PREFIX.setdefault(_prefix, set()).add(_kind)
_NOT_AFTER = {kind: re.compile(rf"(?:{_any_cue(words)})\W{{1,3}}$") for kind, words in WORDS.not_after.items()}
# A date further from its cue counts if its year is too early for an order.
_LATER_DATE = re.compile(rf"[^0-9.!?\n]{{0,48}}(?P<date>{_DATE})(?![^\W_])")
_LONG_AGO = re.compile(r"(?:19[0-9]{2}|200[0-9])(?![0-9])")
_BORN = re.compile("geboren")
_BEFORE_BORN = re.compile(rf"(?<![^\W_])(?P<date>{_DATE})\s(?:in\s\S{{2,24}}\s)?$")
# Driver number of Great Britain: five letters of the name, date of birth, initials. Source: DVLA, INF45.
_DVLA = re.compile(r"(?<![^\W_])[A-Z9]{5}[0-9][0156][0-9][0-3][0-9]{2}[A-Z9]{2}[0-9A-HJ-NP-Z][A-Z]{2}(?![^\W_])")
_CODE_FIRST = re.compile(
    r"(?<![^\W_])(?<![-.,:/#][0-9])(?P<use>(?:use|enter|type)\s(?:the\s)?(?:code\s)?)?"
    r"(?P<code>(?:g-)?(?:[0-9]{3}[ -][0-9]{3}|[0-9]{4,8}))"
    r"\s(?:is\s(?:your|the|my)\s(?:[\w-]+\s){0,3}?(?:code|passcode|pin|otp)(?![^\W_])"
    r"|(?(use)(?:to|when\syou)\s(?:sign|log|verify|confirm|complete|finish|unlock)(?![^\W_])|(?!)))"
)
_IN_CAPITALS = frozenset(WORDS.capitals.split(", "))
_NETWORKS = frozenset((*WORDS.networks.split(", "), "handle"))
_NO_NAMES = frozenset(WORDS.no_passwords.split(", "))
_HANDLE = re.compile(r"@(?<![\w@./]@)\w(?:[\w.]{0,28}\w)?(?![\w@])")
_REACH_AFTER = 24
_LIKE_A_USER = re.compile("[0-9_]")
_SHORTEST_NAME = 3
_VERBS = frozenset(WORDS.verbs.split(", "))
_NAME_LINKS = _VERBS | {"id", "name", "number", "no", "nummer", "as", "follows", "my"}
_SENTENCE_ENDS = re.compile(r"\s*(?:[.,;!?)\n]|$)")
_SORT, _EIGHT = r"[0-9]{2}[- ][0-9]{2}[- ][0-9]{2}", r"[0-9]{8}"
_BETWEEN_BOTH = (
    r"(?:[\s,;:/()#.-]{1,3}|(?:sort|code|sort-?code|s/?c|account|acct?|a/?c|bank|number|no|and|at|is)(?![^\W_])){1,9}"
)
_UK_ACCOUNT = re.compile(
    rf"(?<![\w-])(?:(?P<sort>{_SORT}){_BETWEEN_BOTH}(?P<account>{_EIGHT})"
    rf"|(?P<account_first>{_EIGHT}){_BETWEEN_BOTH}(?P<sort_last>{_SORT}))(?![\w-])"
)
_BANK = re.compile(r"sort.?code|s/c|a/c|\bacc|bank|\bpay")
_AFTER_CODE = re.compile(r"[0-9]{3}\s(?:is|to|when)\s")
GATES: dict[RedactionType, tuple[str, ...]] = {
    kind: (rf"(?:^|[^A-Za-z0-9])(?i:{_any_cue(words, space='[^A-Za-z0-9]{0,2}')})[^A-Za-z0-9][^0-9?!]*[0-9]",)
    for kind, words in WORDS.cues.items()
}
"""For RE2: a cue, and a digit after it."""
GATES["secret"] += (
    "[0-9]{3}[^A-Za-z0-9](?i:is[^A-Za-z0-9](?:your|the|my))[^A-Za-z0-9](?:[^ ]+[^A-Za-z0-9]){0,3}"
    "(?i:code|pass|pin|otp)",
    "(?i:use|enter|type)[^A-Za-z0-9](?i:the[^A-Za-z0-9])?(?i:code[^A-Za-z0-9])?(?i:g-)?[0-9]{3}",
)
GATES["birth_date"] += ("(?i:[0-9][^A-Za-z0-9](?:in.{4,26})?geboren)",)
GATES["driving_licence"] += (r"[A-Z9]{5}[0-9][0156][0-9][0-3][0-9]{2}[A-Z9]{2}",)


GATES["account"] += (rf"(?:^|[^0-9A-Za-z-]){_SORT}(?:[^0-9A-Za-z-]|$)",)
GATES["username"] = (
    rf"(?:^|[^A-Za-z0-9])(?i:{_any_cue(WORDS.cues['username'], space='[^A-Za-z0-9]{0,2}')})[^A-Za-z0-9]",
    "(?:^|[^A-Za-z0-9.@/_])@[A-Za-z0-9_]",
)


def kinds_announced(text: str) -> set[AnnouncedType]:
    """The kinds of which the text may hold a value: all others need no search."""
    words = {word[:_STEM] for word in _WORD.findall(text.lower())}
    kinds = {kind for word in words & _KINDS_BY_PREFIX.keys() for kind in _KINDS_BY_PREFIX[word]}
    if "geboren" in text:
        kinds.add("birth_date")
    if _CODE_FIRST_WORDS & words:
        kinds.add("secret")
    if _DVLA.search(text):
        kinds.add("driving_licence")
    if "@" in text:
        kinds.add("username")
    if _BANK.search(text.lower()):
        kinds.add("account")
    return kinds


def find_announced(text: str, kind: AnnouncedType) -> Iterator[tuple[int, int, str]]:
    """Spans of the values of one kind, each in lower case without spaces.

    >>> text = "DOB: 12 March 1984, passport no. C01X0006H, ordered on 1 June 2026"
    >>> [text[slice(*found[:2])] for kind in ("birth_date", "passport") for found in find_announced(text, kind)]
    ['12 March 1984', 'C01X0006H']
    """
    lower = text.lower()
    if len(lower) != len(text):  # "İ" becomes two characters
        lower = "".join(each if len(each.lower()) != 1 else each.lower() for each in text)
    taken = 0
    for cue in _cues(lower, kind):
        start = cue.end()
        value = _VALUES[kind].match(lower, start)
        end = value.end() if value is not None else start
        if value is None and kind == "birth_date" and (later := _LATER_DATE.match(lower, start)) is not None:
            start, end = later.span("date") if _LONG_AGO.search(later["date"]) else (start, start)
        if start >= taken and end > start and _is_announced(text, cue, (start, end), kind):
            taken = end
            yield start, end, re.sub(r"[\s.-]", "", lower[start:end])
    if kind in _OTHER_FORMS:
        yield from _OTHER_FORMS[kind](text, lower)


def _is_announced(text: str, cue: re.Match[str], span: tuple[int, int], kind: AnnouncedType) -> bool:
    lower, (start, end) = cue.string, span
    if kind in _NOT_AFTER and _NOT_AFTER[kind].search(lower, max(0, cue.start() - 24), cue.start()):
        return False
    if cue["cue"] in _IN_CAPITALS and not text[slice(*cue.span("cue"))].isupper():
        return False
    match kind:
        case "account":
            return not card_digits(lower, start, end)
        case "address":  # "postcode 1016 GX", but not "postcode 1016 is"
            return " " not in lower[start:end] or text[start:end].isupper()
        case "username":
            return _is_username(lower, cue["gap"], start, end)
    return True


def _is_username(lower: str, gap: str, start: int, end: int) -> bool:
    """Whether a word after "user", "login" is a name: it has a digit or _, or a sign or "is" before it."""
    if not _NAME_LINKS.issuperset(_WORD.findall(gap)):
        return False
    name = lower[start:end].removeprefix("@")
    if lower[start] == "@" or (_LIKE_A_USER.search(name) and not name[0].isdigit()):
        return True
    if name in _NO_NAMES or not name.replace(".", "").replace("-", "").isalpha() or len(name) < _SHORTEST_NAME:
        return False
    return (
        ":" in gap
        or "=" in gap
        or (not _VERBS.isdisjoint(_WORD.findall(gap)) and _SENTENCE_ENDS.match(lower, end) is not None)
    )


def _cues(lower: str, kind: AnnouncedType) -> Iterator[re.Match[str]]:
    starts = set()
    for stem in _STEMS[kind]:
        if stem not in lower:
            continue
        at = lower.find(stem)
        while at >= 0:
            starts.add(at)
            at = lower.find(stem, at + 1)
    for at in sorted(starts):
        if (match := _CUES[kind].match(lower, at)) is not None:
            yield match


def _dates_first(_text: str, lower: str) -> Iterator[tuple[int, int, str]]:
    """ "Ich bin am 12.3.1984 geboren"."""
    for cue in _BORN.finditer(lower) if "geboren" in lower else ():
        window = max(0, cue.start() - 48)
        for match in _BEFORE_BORN.finditer(lower, window, cue.start()):
            yield match.start("date"), match.end("date"), re.sub(r"[\s.-]", "", match["date"])


def _licences_alone(text: str, _lower: str) -> Iterator[tuple[int, int, str]]:
    for match in _DVLA.finditer(text):
        yield match.start(), match.end(), match[0].lower()


def _codes_first(_text: str, lower: str) -> Iterator[tuple[int, int, str]]:
    """ "482913 is your code", "use 482913 to sign in"."""
    for match in _CODE_FIRST.finditer(lower) if _AFTER_CODE.search(lower) else ():
        yield match.start("code"), match.end("code"), re.sub(r"[\s-]", "", match["code"])


def _uk_accounts(_text: str, lower: str) -> Iterator[tuple[int, int, str]]:
    """A sort code next to an account number of eight digits, where a word such as "account" is on the line."""
    for match in _UK_ACCOUNT.finditer(lower) if _BANK.search(lower) else ():
        line = lower[lower.rfind("\n", 0, match.start()) + 1 : match.end()]
        for name in ("sort", "account", "account_first", "sort_last") if _BANK.search(line) else ():
            if match[name]:
                yield *match.span(name), re.sub("[ -]", "", match[name])


def _handles(_text: str, lower: str) -> Iterator[tuple[int, int, str]]:
    """ "I am @ann_lee on Instagram", "my handle is @ann_lee"."""
    for match in _HANDLE.finditer(lower) if "@" in lower else ():
        after = _WORD.findall(lower[match.end() : match.end() + _REACH_AFTER])[:2]
        if not _NETWORKS.isdisjoint((*words_before(lower, match.start()), *after)):
            yield match.start(), match.end(), match[0]


_OTHER_FORMS: dict[AnnouncedType, Callable[[str, str], Iterator[tuple[int, int, str]]]] = {
    "account": _uk_accounts,
    "birth_date": _dates_first,
    "driving_licence": _licences_alone,
    "secret": _codes_first,
    "username": _handles,
}
