"""The words that identify parts of a message: greetings, sign-offs, headers, in English, German, French and Spanish;
`mail_words.yaml` lists them.

It decides nothing; `mail_parts.py` and its helpers do. All patterns are for one line of bounded length, so none takes
long.
"""

import re
from pathlib import Path
from typing import Literal

from ruamel.yaml import YAML

from schemas.spec import Spec

BLANK = " \t\r\f\v\u00a0"
"""Characters around a line that do not count."""


class MailWords(Spec):
    """The whole file; its comments describe each entry."""

    greeting_openers: str
    addressed: str
    no_names: str
    sign_off: str
    sign_off_first_words: str
    device_first_words: str
    titles: str
    headers: dict[Literal["from", "to", "sent", "subject", "cc"], str]
    verbs: str
    originals: str
    forwarded: str
    forward_notes: str
    reply_above: str


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split(", "))


_WORDS = MailWords.model_validate(YAML(typ="safe", pure=True).load(Path(__file__).with_name("mail_words.yaml")))
GREETING_OPENERS = _listed(_WORDS.greeting_openers)
ADDRESSED = frozenset(_listed(_WORDS.addressed))
"""Lower-case words of a greeting that are not names."""
NO_NAMES = frozenset(_listed(_WORDS.no_names))
"""Words that are not names even with a capital: `Hello, My parcel ...`."""

_UNIT = re.sub(r"\s*\n\s*", "", _WORDS.sign_off)
SIGN_OFF = re.compile(rf"(?:{_UNIT})(?:\s?(?:,|&|and|und|et|y)\s?(?:{_UNIT}))*\s?[,.!;]{{0,3}}", re.IGNORECASE)
"""One or more units; the rest of the line must be a name."""
SIGN_OFF_FIRST_WORDS = frozenset(_listed(_WORDS.sign_off_first_words))
"""Every first word that `SIGN_OFF` can match; checked before the pattern."""

DEVICE_FIRST_WORDS = _listed(_WORDS.device_first_words)
_DEVICES = (
    "i-?phone|i-?pad|android|samsung|galaxy|blackberry|huawei|xiaomi|pixel|nokia|mobile|handy|smartphone|phone|outlook"
    "|e?-?mail|windows|yahoo|gmx|thunderbird|sparrow|móvil|mobil|téléphone|portable|tablet|device"
)
DEVICE = re.compile(
    rf"(?:(?:sent|gesendet|envoyé|enviado)\s(?:from|with|via|von|mit|de|depuis|desde)\b.*\b(?:{_DEVICES})\b.*"
    rf"|von\smeinem\s.*\sgesendet\.?|(?:get|télécharger|obtener)\soutlook\s.*|via\smobile)",
    re.IGNORECASE,
)
DISCLAIMER = re.compile(
    r"[*_\s]*(?:this (?:e-?mail|message)|the information (?:contained )?in this|confidentiality notice|confidential"
    r"|diese e-?mail|diese nachricht|ce (?:message|courriel|mail)|este (?:mensaje|correo))\b",
    re.IGNORECASE,
)
CONTACT = re.compile(
    r"(?:\S@\S+\.\S|\bwww\.\S|\bhttps?://\S|\[(?:EMAIL|PHONE|URL)_\d+\]|\+?\(?\d[\d ()./-]{6,20}\d"
    r"|^(?:tel|telephone|telefon|phone|mobile|mobil|cell|fax|skype|web|e-?mail|tél|móvil|correo|[tmfe])\b ?[.:])",
    re.IGNORECASE,
)

TITLES = frozenset(_listed(_WORDS.titles))
"""A full stop after these does not end a greeting."""

HEADERS = {name: kind for kind, names in _WORDS.headers.items() for name in _listed(names)}
"""Name of a header line -> its kind."""
REPLY_ABOVE_WORDS = _listed(_WORDS.reply_above)
VERBS = _listed(_WORDS.verbs)
ATTRIBUTION_START = re.compile(
    r"[-*\s]{0,8}(?:(?:on|am|le|el|il|op|em|den|w dniu)\s|\d|(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}\b)",
    re.IGNORECASE,
)
ADDRESS = re.compile(r"\S@\S|\[EMAIL_\d")
ADDRESS_OR_TIME = re.compile(r"\S@\S|\[EMAIL_\d|\d{1,2}:\d{2}")
DATE = re.compile(r"\d{4}|\d{1,2}[./-]\d{1,2}")
ORIGINALS = _listed(_WORDS.originals)
ORIGINAL = re.compile(rf"[-_=*\s]*(?:{'|'.join(ORIGINALS)})[:\s]*[-_=*\s]*", re.IGNORECASE)
ORIGINAL_INITIALS = "-_=* OoUuMm"
_FORWARDED = _listed(_WORDS.forwarded)
FORWARDED = re.compile(rf"[-_=*\s]*(?:begin |start of )?(?:{'|'.join(_FORWARDED)})\b", re.IGNORECASE)
FORWARD_INITIALS = frozenset("-_=* BbSs") | {each for phrase in _FORWARDED for each in (phrase[0], phrase[0].upper())}
FORWARD_NOTES = frozenset(_listed(_WORDS.forward_notes))
"""Lower-case lines that only point to the message below them."""
REPLY_ABOVE = re.compile(
    r"\b(?:(?:reply|respond|write|type)\b.{0,30} above this line|oberhalb dieser (?:linie|zeile)"
    r"|au-dessus de cette ligne|(?:encima|arriba) de esta línea)",
    re.IGNORECASE,
)


def holds_reply_above(text: str) -> bool:
    """False if no line of the text can match `REPLY_ABOVE`."""
    lower = text.lower()
    return any(phrase in lower for phrase in REPLY_ABOVE_WORDS)
