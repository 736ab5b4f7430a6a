"""Find people's names by rules: in greetings, signatures and introductions, and after titles.

A name in the middle of a sentence is found by no rule: for those `names.py` has a model. The words are in
`name_rules.yaml`.
"""

import re
from collections.abc import Iterator

from schemas.spec import Spec
from tasks.curate.redaction.words import LowerWords, any_of, read_words


class _NameWords(Spec):
    """The file; its comments describe each section."""

    greetings: LowerWords
    titles: LowerWords
    closings: LowerWords
    introductions: LowerWords
    presentations: LowerWords
    no_names: LowerWords


_WORDS = read_words("name_rules", _NameWords)


def _any_of(words: str) -> str:
    """Without distinction of case, whatever the flags of the pattern around it are."""
    return f"(?i:{any_of(words)})"


_CAPITAL = "A-ZÀ-ÖØ-ÞĀĂĄĆČĎĐĒĘĚĞĢĪĮİĶŁŃŅŇŐŒŘŚŞŠŢŤŪŮŰŹŻŽȘȚ"
_WORD = rf"[{_CAPITAL}](?:[^\W\d_]|['’-](?=[^\W\d_])){{1,24}}"
_INITIAL = rf"[{_CAPITAL}]\."
_PARTICLE = r"(?:van|von|de|del|della|der|den|di|da|dos|la|le|bin|al|ter|zu)"
_NAME = rf"(?:{_WORD}|{_INITIAL})(?:[ ](?:{_PARTICLE}[ ]){{0,2}}(?:{_WORD}|{_INITIAL})){{0,3}}"
_TITLE = rf"(?:{_any_of(_WORDS.titles)})\.?[ ]"
_START = r"(?:^|(?<=[\n.!?>]))[ \t>]*"
_AFTER_NAME = r"(?=[ ]?(?:[,:!.;)\n]|$)|[ ]-|[ ](?:and|und|et|y)[ ])"
_FINDERS = (
    re.compile(rf"(?m){_START}{_any_of(_WORDS.greetings)}[ ,]{{1,2}}(?:{_TITLE}){{0,2}}(?P<name>{_NAME}){_AFTER_NAME}"),
    re.compile(rf"(?<![^\W_]){_TITLE}(?:(?i:dr|prof)\.?[ ])?(?P<name>{_NAME})"),
    re.compile(
        rf"(?m){_START}{_any_of(_WORDS.closings)}(?:[ ]?[,.!;:–-]{{0,2}}[ ]{{0,2}}\n\s{{0,8}}|[ ]?[,–-][ ]?|[ ])"
        rf"(?:[-–]{{1,2}}[ ]?)?(?:{_TITLE})?(?P<name>{_NAME})[ ]?(?=[,.|(]|[ \t]*(?:\n|$))"
    ),
    re.compile(rf"(?m)^--[ ]?\n(?P<name>{_NAME})[ ]?$"),
    re.compile(rf"(?<![^\W_]){_any_of(_WORDS.introductions)}[ ](?:{_TITLE})?(?P<name>{_NAME})"),
    re.compile(
        rf"(?<![^\W_]){_any_of(_WORDS.presentations)}[ ](?:{_TITLE})?(?P<name>{_NAME})"
        r"(?=,|[ ](?:from|of|at|with|again|and|von|aus|de|der|here|speaking|calling)(?!\w)|[ ]?\n|$)"
    ),
    re.compile(rf"(?m)^[ \t>]*(?i:(?:full[ ]|first[ ]|last[ ]|sur)?name|nom|nombre)[ ]?:[ ](?P<name>{_NAME})[ ]?$"),
)
_WHOLE_NAME = re.compile(_NAME)
_LONGEST_INITIAL = 2
_NO_NAMES = frozenset(re.findall(r"[\w'’.-]+", f"{_WORDS.no_names} {_WORDS.closings} {_WORDS.greetings}"))
_BEFORE_NAMES = (_WORDS.greetings, _WORDS.closings, _WORDS.titles, _WORDS.introductions, _WORDS.presentations)
GATE = (
    rf"{_any_of(', '.join(_BEFORE_NAMES))}[^A-Za-z0-9]{{1,16}}[{_CAPITAL}]",
    rf"(?i:name|nom|nombre) ?: [{_CAPITAL}]",
    rf"-- ?[^A-Za-z0-9]?[{_CAPITAL}]",
)
"""For RE2: words of these rules, and a capital letter."""


def _matches(finder: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """As `finditer`, but what is no name may begin the next match: "Merci d'avance.\n\nCordialement,\nAnn Lee"."""
    match = finder.search(text)
    while match is not None:
        yield match
        match = finder.search(text, match.start("name") if _is_no_name(match["name"].split(" ")[0]) else match.end())


def _is_no_name(word: str) -> bool:
    return word.lower().rstrip(".") in _NO_NAMES


def find_names_by_rules(text: str) -> Iterator[tuple[int, int, str]]:
    """Spans of people's names, left to right, each in lower case with single spaces.

    >>> text = "Dear Dr. Keller,\\nmy name is Ann Lee and it broke on Monday.\\n\\nKind regards\\nAnn Lee"
    >>> [key for _, _, key in find_names_by_rules(text)]
    ['keller', 'ann lee', 'ann lee']
    """
    spans = set()
    for finder in _FINDERS:
        for match in _matches(finder, text):
            words = match["name"].split(" ")
            # What follows the name may begin with a capital, too: "Regards, Ann Sent from my phone".
            n_words = next((place for place, word in enumerate(words) if _is_no_name(word)), len(words))
            name = " ".join(words[:n_words])
            if len(name) > _LONGEST_INITIAL:
                spans.add((match.start("name"), match.start("name") + len(name)))
    place = 0
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= place:
            place = end
            yield start, end, text[start:end].casefold()


def may_be_name(text: str) -> bool:
    """Return whether the text has the form of a full name; so have many products ("Aurora Lamp").

    >>> [may_be_name(text) for text in ("Ann Lee", "J. van Dyk", "Billing", "card arrival", "Galaxy S23")]
    [True, True, False, False, False]
    """
    words = text.split(" ")
    return len(words) > 1 and _WHOLE_NAME.fullmatch(text) is not None and not any(map(_is_no_name, words))
