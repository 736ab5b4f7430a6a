"""Fill `mail_phrases.yaml`: mails in seven languages with planted values (check digits right), and harmless mails."""

import random
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import phonenumbers
from ruamel.yaml import YAML
from stdnum import luhn
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.pt import nif

from benchmarks.personal_phrases import Marked

MailSet = Literal["seen", "held_out"]
_SLOT = re.compile(r"\{(\w+)\}")
_MARK = re.compile(r"[#?]")
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
_GROUPS = {15: (4, 6, 5), 16: (4, 4, 4, 4)}


def planted_mails(of: MailSet, *, n_each: int, without: Collection[str] = ()) -> list[Marked]:
    """Every sentence `n_each` times, half of them within a mail; each span is a value that has to be found.

    Args:
        without: Countries whose sentences are left out.
    """
    phrases = read_mail_phrases()
    mails: list[Marked] = []
    for kind, by_country in phrases[of]["sentences"].items():
        for country, sentences in by_country.items():
            draw = random.Random(f"{of} {kind} {country}")  # noqa: S311
            mails += [
                _filled(sentence, country, phrases[of]["words"] | phrases, draw, framed=bool(number % 2))
                for number in range(n_each)
                for sentence in (sentences if country not in without else ())
            ]
    return mails


def harmless_mails(of: MailSet, *, n_texts: int) -> list[str]:
    """Mails that hold nothing personal, each sentence about as often as the others."""
    sentences = read_mail_phrases()[of]["harmless"]
    draw = random.Random(f"{of} harmless")  # noqa: S311
    return [
        _MARK.sub(lambda mark: draw.choice("0123456789" if mark[0] == "#" else _LETTERS), sentences[n % len(sentences)])
        for n in range(n_texts)
    ]


def is_hidden(text: str, start: int, end: int, found: Iterable[tuple[int, int]]) -> bool:
    """True if no letter or digit of the value is outside the spans that were found."""
    spans = list(found)
    places = [place for place in range(start, end) if text[place].isalnum()]
    return all(any(first <= place < last for first, last in spans) for place in places)


def read_mail_phrases() -> dict[str, Any]:
    """The file; its head says what a key is."""
    path = Path(__file__).with_name("mail_phrases.yaml")
    return dict(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))


def _filled(sentence: str, country: str, words: Mapping[str, Any], draw: random.Random, *, framed: bool) -> Marked:
    before, after = words["frames"][country] if framed else ("", "")
    text, spans, place = before, [], 0
    for slot in _SLOT.finditer(sentence):
        text += sentence[place : slot.start()]
        place = slot.end()
        if slot[1] in VALUES:
            value = VALUES[slot[1]](country, words, draw)
            spans.append((len(text), len(text) + len(value), slot[1]))
        else:
            value = draw.choice(words[slot[1]][country])
        text += value
    return text + sentence[place:] + after, spans


def _phone(country: str, _words: Mapping[str, Any], draw: random.Random) -> str:
    region = country.upper()
    kinds = (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE)
    example = str(phonenumbers.example_number_for_type(region, draw.choice(kinds)).national_number)
    while True:
        digits = example[:-6] + _digits(6, draw)
        number = phonenumbers.parse(digits if region != "IT" or digits[0] == "3" else f"0{digits.lstrip('0')}", region)
        if phonenumbers.is_valid_number(number):
            break
    forms = (phonenumbers.PhoneNumberFormat.NATIONAL, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    written = phonenumbers.format_number(number, draw.choice(forms))
    return draw.choice(
        (written, written, written.replace(" ", "."), written.replace(" ", "-"), written.replace(" ", ""))
    )


def card(draw: random.Random) -> str:
    """The digits of a card with a right check digit."""
    start, length = draw.choice((("4", 16), ("4", 16), (f"5{draw.randint(1, 5)}", 16), (draw.choice(("34", "37")), 15)))
    digits = start + _digits(length - 1 - len(start), draw)
    return digits + luhn.calc_check_digit(digits)


def _card(_country: str, _words: Mapping[str, Any], draw: random.Random) -> str:
    digits = card(draw)
    mark = draw.choice((" ", "-", "", "/", "_", ".", "  ", " - ", "single ", "single-"))
    if mark.startswith("single"):
        return mark[-1].join(digits)
    ends = iter(range(len(digits)))
    return mark.join("".join(digits[next(ends)] for _ in range(size)) for size in _GROUPS[len(digits)])


def _email(country: str, words: Mapping[str, Any], draw: random.Random) -> str:
    at, dot = draw.choice(words["email_words"][country])
    local, host = draw.choice(words["local"]), draw.choice(words["host"])
    return f"{local.replace('.', dot)}{at}{host.replace('.', dot)}"


def _account(_country: str, _words: Mapping[str, Any], draw: random.Random) -> str:
    return _digits(8, draw)


def _sort_code(_country: str, _words: Mapping[str, Any], draw: random.Random) -> str:
    return draw.choice(("-", "-", " ")).join(_digits(2, draw) for _ in range(3))


def _nino(_country: str, _words: Mapping[str, Any], draw: random.Random) -> str:
    start, end = draw.choice(("AB", "JK", "PX", "SN", "CE", "TY")), draw.choice("ABCD")
    pairs = [_digits(2, draw) for _ in range(3)]
    return draw.choice((" ", "")).join((start, *pairs, end))


def _nir(_country: str, _words: Mapping[str, Any], draw: random.Random) -> str:
    parts = [draw.choice("12"), f"{draw.randint(40, 99)}", f"{draw.randint(1, 12):02}", f"{draw.randint(1, 95):02}"]
    parts += [f"{draw.randint(1, 400):03}", f"{draw.randint(1, 400):03}"]
    return draw.choice((" ", "", ".")).join((*parts, nir.calc_check_digits("".join(parts))))


def _nif(country: str, _words: Mapping[str, Any], draw: random.Random) -> str:
    if country == "pt":
        digits = draw.choice("125") + _digits(7, draw)
        digits += nif.calc_check_digit(digits)
        return draw.choice((digits, f"{digits[:3]} {digits[3:6]} {digits[6:]}"))
    digits = _digits(8, draw)
    letter = dni.calc_check_digit(digits)
    return draw.choice((f"{digits}{letter}", f"{digits}-{letter}", f"{digits[:2]}.{digits[2:5]}.{digits[5:]}-{letter}"))


def _nie(_country: str, _words: Mapping[str, Any], draw: random.Random) -> str:
    body = draw.choice("XYZ") + _digits(7, draw)
    return draw.choice(("", "-")).join((body[0], body[1:], nie.calc_check_digit(body)))


def _id_card(_country: str, _words: Mapping[str, Any], draw: random.Random) -> str:
    body = draw.choice("LMNPRTVWXY") + "".join(draw.choice("0123456789CFGHJKLMNPRTVWXYZ") for _ in range(8))
    check = sum(int(mark, 36) * (7, 3, 1)[place % 3] for place, mark in enumerate(body)) % 10
    return draw.choice((body, f"{body}{check}"))


def _street(country: str, words: Mapping[str, Any], draw: random.Random) -> str:
    return str(draw.choice(words["street"][country]))


def _postcode(country: str, _words: Mapping[str, Any], draw: random.Random) -> str:
    if country == "gb":
        area = draw.choice(("LS6", "BS1", "NR2", "G12", "SW1A", "EC1V", "M14", "CF10", "S10", "YO1"))
        return f"{area} {draw.choice('123456789')}{draw.choice('ABDEFGHJLN')}{draw.choice('ABDEFGHJLN')}"
    if country == "us":
        return draw.choice(("97205", "78701", "80203", "53703-1411", "85701", "83702-2210", "43215"))
    if country == "pt":
        return f"{draw.randint(1000, 8999)}-{_digits(3, draw)}"
    if country == "br":
        return f"{draw.randint(10000, 89999)}-{_digits(3, draw)}"
    if country == "nl":
        return f"{draw.randint(1011, 9799)}{draw.choice((' ', ''))}{draw.choice(_LETTERS)}{draw.choice(_LETTERS)}"
    return f"{draw.randint(*(10000, 52999) if country == 'es' else (10000, 95999)):05}"


def _digits(n: int, draw: random.Random) -> str:
    return "".join(draw.choice("0123456789") for _ in range(n))


VALUES: dict[str, Callable[[str, Mapping[str, Any], random.Random], str]] = {
    "phone": _phone,
    "card": _card,
    "password": lambda _country, words, draw: str(draw.choice(words["password"])),
    "email": _email,
    "user": lambda _country, words, draw: str(draw.choice(words["user"])),
    "handle": lambda _country, words, draw: f"@{draw.choice(words['user']).replace('-', '_')}",
    "account": _account,
    "sort_code": _sort_code,
    "nino": _nino,
    "nir": _nir,
    "nif": _nif,
    "nie": _nie,
    "id_card": _id_card,
    "street": _street,
    "postcode": _postcode,
}
"""What is drawn for a slot; every other slot is a word."""
