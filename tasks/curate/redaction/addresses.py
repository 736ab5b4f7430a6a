"""Find postal addresses of the United States, Great Britain, Brazil and six countries of the continent.

A street and house number with a postcode or state is an address by its form. A street alone counts after a word such as
"live at" or "Lieferadresse", or on a line of its own; on the continent also where its name is certain. The words
are in `addresses.yaml`.
"""

import re
from collections.abc import Iterator

from schemas.spec import Spec
from tasks.curate.redaction.words import Words, any_of, read_words


class _AddressWords(Spec):
    """The file; its comments describe each section."""

    english: Words
    numbered: Words
    german: Words
    german_common: Words
    german_no_street: Words
    french: Words
    romance: Words
    romance_common: Words
    states: Words
    before: Words


_WORDS = read_words("addresses", _AddressWords)
_NAME = r"(?:[A-ZÀ-ÖØ-ÞŠŽŒ][\w'’-]{0,24}+(?:\.(?=[ ]))?)"
_NEXT = r"(?:(?:[ ]-|,|[ ]in(?=[ ][D0-9]))?[ ]{0,2}\n?[ ]{0,2})(?<=[ \n])"
"""Between two parts of an address: a comma, a hyphen, "in" before a postcode, spaces, a line break."""
_STATE = rf"(?:{any_of(_WORDS.states)})(?!\w)"
_ZIP = r"[0-9]{5}(?:-[0-9]{4})?(?![\w-])"
_POSTCODE = r"[A-Z]{1,2}[0-9][0-9A-Z]?[ ]?[0-9][A-Z]{2}(?!\w)"
_TOWN = rf"{_NAME}(?:[ -]{_NAME}){{0,2}}"
_NOT_INSIDE = r"(?<![\w.,:/#-])"
_FLAT = r"(?:(?:Flat|Unit|Apartment)[ ][0-9A-Za-z]{1,4},?[ ])?"
_ENGLISH = re.compile(
    # Begins with a set of characters: Python skips all others several times faster than it tries a pattern.
    rf"""(?x)[FUA0-9](?<![\w.,:/#-][FUA0-9])
    (?:(?<=[0-9])|(?:(?<=F)lat|(?<=U)nit|(?<=A)partment)[ ][0-9A-Za-z]{{1,4}},?[ ][0-9])
    [0-9]{{0,5}}[A-Za-z]?(?:-[0-9]{{1,5}})?,?[ ]
    (?:(?:{_NAME}[ ]){{0,3}}?(?:{any_of(_WORDS.numbered)})[ ][0-9]{{1,4}}
      | (?:(?:[0-9]{{1,3}}(?:st|nd|rd|th)|{_NAME})[ ]){{1,4}}?(?:{any_of(_WORDS.english)}))(?!\w)\.?
    (?:[ ][NS]?[NEWS](?!\w))?
    (?:,?[ ](?:(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Room)\.?[ ]?\#?|\#[ ]?)[0-9A-Za-z-]{{1,6}}+)?
    (?P<more>{_NEXT}{_TOWN},?[ ]{_STATE}(?:,?[ ]{_ZIP})? | {_NEXT}{_TOWN},?[ ]{_ZIP}
      | (?:{_NEXT}{_TOWN})?{_NEXT}{_POSTCODE} | {_NEXT}{_ZIP})?(?:,[ ]{_TOWN})?"""
)
_BY_POSTCODE = re.compile(
    rf"(?x){_NOT_INSIDE}{_FLAT}(?:[0-9]{{1,5}}[A-Za-z]?,?[ ])?(?P<name>{_NAME}(?:[ ]{_NAME}){{0,3}}){_NEXT}"
    rf"(?:{_TOWN}{_NEXT})?{_POSTCODE}"
)
_GERMAN = re.compile(
    rf"""(?x)(?<![\w-])(?:(?P<certain>(?:{_NAME}[ -]){{0,2}}[\w-]{{0,40}}?(?:{any_of(_WORDS.german)}))
    | (?P<common>(?:[A-ZÄÖÜ][\w-]{{2,32}}?|{_NAME}[ ])(?:{any_of(_WORDS.german_common)})
      | (?:Am|An[ ]der|Im|Auf[ ]der|Zum|Zur)[ ]{_NAME}))
    [ ]?[0-9]{{1,4}}(?:[ ]?[a-h](?!\w))?(?:[ ]?-[ ]?(?:[0-9]{{1,4}}[a-h]?|[IVX]{{1,4}}|hs))?(?![\w%€]|[.,:][0-9])
    (?P<more>{_NEXT}(?:(?:D-)?[0-9]{{5}}|[0-9]{{4}}[ ]?[A-Z]{{2}})[ ]{_TOWN}
      (?:[ ](?:am|an[ ]der|im|in[ ]der)[ ]{_NAME})?)?"""
)
_FRENCH = re.compile(
    rf"""(?x)[0-9](?<![\w.,:/#-][0-9])[0-9]{{0,3}}(?:[ ]?(?:bis|ter|quater|[A-D])(?!\w))?,?[ ]
    (?i:{any_of(_WORDS.french)})[ ]
    (?:(?:de[ ]la|de|du|des|la|le|les)[ ])?(?:[dl]['’])?{_NAME}
    (?:[ -](?:(?:de[ ]la|de|du|des|la|le|et)[ ])?{_NAME}){{0,4}}
    (?P<more>{_NEXT}[0-9]{{5}}[ ]{_TOWN})?"""
)
_OF = r"(?:(?:de[ ]l[ao]s?|del|dell[aeo]|dei|degli|de|da|do|das|dos|di|l[ao]s?|el)[ ]|d?ell['’]|d['’])"
_ROMANCE = re.compile(
    rf"""(?x)(?<![\w-])(?:(?P<certain>{any_of(_WORDS.romance)})|(?P<common>{any_of(_WORDS.romance_common)}))[ ]?
    {_OF}{{0,2}}(?:{_NAME}|[0-9]{{1,2}}[ ]de[ ]{_NAME})(?:[ ]{_OF}{{0,2}}{_NAME}){{0,4}}
    (?:,?[ ]{{1,2}}|,)(?:(?:n\.?[ ]?[ºo°]|n\.|número|km)\.?[ ]?)?
    [0-9]{{1,5}}(?:[ ]?[/-]?[A-Za-z])?(?![\w%€]|[.,:][0-9])
    (?:,?[ ](?:[0-9]{{1,2}}\.?[ºªo°](?:[ ](?:[A-Z]|[A-Za-z]{{2,3}}\.?|[0-9]))?|bajo|ático|r/c
      |(?:apto?|int)\.?[ ]?[0-9]+)(?!\w)){{0,2}}
    (?P<more>{_NEXT}(?:[0-9]{{4,5}}-[0-9]{{3}}|[0-9]{{5}})(?![\w-])(?:[ ]{_TOWN})? | ,[ ]{_TOWN})?"""
)
_BEFORE = re.compile(rf"(?i:(?<!\w)(?:{any_of(_WORDS.before)}))[ ]?[:,]?\s{{1,3}}$")
_LONGEST_BEFORE = 24
_END_OF_POSTCODE = re.compile(r"[0-9](?<=[0-9A-Z ][0-9])[A-Z]{2}(?!\w)")
_NUMBER_AND_NAME = re.compile(rf"[0-9][A-Za-z]?,?[ ](?:{_NAME}|[0-9]{{1,3}}(?:st|nd|rd|th))[ ]")
_NUMBER_AFTER_WORD = re.compile(r"[0-9](?:(?<=[a-zäöüß.] [0-9])|(?<=[a-zäöüß.][0-9]))")
_ROMANCE_WORD = re.compile(rf"(?<!\w)(?:{any_of(_WORDS.romance)}|{any_of(_WORDS.romance_common)})[ A-ZÀ-Þ]")
_GERMAN_ENDS = tuple(f"{_WORDS.german}, {_WORDS.german_common}".split(", "))
_GERMAN_PREPOSITION = re.compile(r"(?:Am|An der|Im|Auf der|Zum|Zur) [^ ]+$")
_NO_STREETS = frozenset(_WORDS.german_no_street.split(", "))
GATE: tuple[str, ...] = (
    rf"[0-9][A-Za-z]?,? .* (?:{any_of(_WORDS.english)})(?:\W|$)",
    "[A-Z][0-9][0-9A-Z]? ?[0-9][A-Z]{2}",
    f"(?:{any_of(_WORDS.german)}|{any_of(_WORDS.german_common)}) ?[0-9]",
    "(?:Am|An der|Im|Auf der|Zum|Zur) [^ ]+ ?[0-9]",
    f"[0-9] ?(?:bis|ter|quater|[A-D])?,? (?i:{any_of(_WORDS.french)}) ",
    f"(?:{any_of(_WORDS.romance)}|{any_of(_WORDS.romance_common)})[^0-9\n]+[0-9]",
    rf" (?:{any_of(_WORDS.numbered)}) [0-9]",
)
"""For RE2."""
WORDS_GATE = (rf" (?:{any_of(_WORDS.english)})(?:\W|$)", *GATE[1:])
"""One of these is in every text that passes `GATE`; joined with others, `.*` costs RE2 four times as much."""


def find_addresses(text: str) -> Iterator[tuple[int, int, str]]:
    """Spans of postal addresses, each in lower case with single spaces.

    >>> text = "Ship it to 12 Mill Lane, Leeds, LS1 4AP, not in 12 days. Hauptstraße 5, 50667 Köln"
    >>> [text[start:end] for start, end, _ in find_addresses(text)]
    ['12 Mill Lane, Leeds, LS1 4AP', 'Hauptstraße 5, 50667 Köln']
    """
    # What a pattern needs is checked first, by means that are many times faster than trying it at each word.
    patterns = [_ENGLISH] if _NUMBER_AND_NAME.search(text) else []
    patterns += [_GERMAN] if any(map(_ends_german_street, _NUMBER_AFTER_WORD.finditer(text))) else []
    patterns += [_ROMANCE] if _ROMANCE_WORD.search(text) else []
    matches = [match for pattern in (*patterns, _FRENCH) for match in pattern.finditer(text) if _holds(match)]
    if _END_OF_POSTCODE.search(text):
        matches += _BY_POSTCODE.finditer(text)
    place = 0
    for match in sorted(matches, key=lambda match: (match.start(), -match.end())):
        if match.start() >= place:
            place = match.end()
            yield match.start(), match.end(), " ".join(match[0].casefold().replace(",", " ").split())


def _holds(match: re.Match[str]) -> bool:
    if match["more"] or match.re is _FRENCH:
        return True
    if match.re in {_GERMAN, _ROMANCE}:
        if match["certain"]:
            return True
        if (match["common"] or "").lower() in _NO_STREETS:
            return False
    text, start, end = match.string, match.start(), match.end()
    if _BEFORE.search(text, max(0, start - _LONGEST_BEFORE), start):
        return True
    return _is_own_line(text, start, end)


def _ends_german_street(number: re.Match[str]) -> bool:
    before = number.string[max(0, number.start() - 40) : number.start()].rstrip(" ")
    return before.endswith(_GERMAN_ENDS) or _GERMAN_PREPOSITION.search(before) is not None


def _is_own_line(text: str, start: int, end: int) -> bool:
    before = text[text.rfind("\n", 0, start) + 1 : start]
    line_end = text.find("\n", end)
    return not before.strip() and not text[end : len(text) if line_end < 0 else line_end].strip(" ,.")
