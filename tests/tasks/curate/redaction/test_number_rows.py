"""Two values in a row, whatever their kinds and the gap between them: neither leaves its digits in the text."""

import random
import re
from collections import Counter
from collections.abc import Callable
from itertools import product

import phonenumbers
import pytest
from stdnum import iban
from stdnum.br import cpf
from stdnum.es import dni
from stdnum.fr import nir
from stdnum.us import ssn

from benchmarks.mail_phrases import card
from schemas.curation_steps import RedactStep
from tasks.curate.redact import redact_row

STEP = RedactStep(uses="redact")
SEPARATORS = (" ", "  ", ". ", " - ", " / ", " (", ", ", " and ")
MOST_LEFT = 0.01
PLACEHOLDER = re.compile(r"\[[A-Z_]+_[0-9]+\]")


def redacted(text: str) -> str:
    return redact_row({"body": text}, STEP)[0]["body"] or ""


def n_digits_left(text: str) -> int:
    return sum(mark.isdigit() for mark in PLACEHOLDER.sub("", redacted(text)))


def digits(n: int, draw: random.Random) -> str:
    return "".join(draw.choices("0123456789", k=n))


def phone(region: str, form: int, draw: random.Random) -> str:
    """A number that phonenumbers calls valid, in the form it prefers."""
    kind = draw.choice((phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE))
    example = phonenumbers.national_significant_number(phonenumbers.example_number_for_type(region, kind))
    while True:
        number = phonenumbers.parse(example[:-6] + digits(6, draw), region)
        if phonenumbers.is_valid_number(number):
            return phonenumbers.format_number(number, form)


def grouped(text: str, size: int, mark: str) -> str:
    return mark.join(text[place : place + size] for place in range(0, len(text), size))


def an_ssn(draw: random.Random) -> str:
    while True:
        number = f"{digits(3, draw)}-{digits(2, draw)}-{digits(4, draw)}"
        if ssn.is_valid(number):
            return number


def a_cpf(draw: random.Random) -> str:
    body = digits(9, draw)
    return cpf.format(body + cpf._calc_check_digits(body))


def a_nir(draw: random.Random) -> str:
    parts = (draw.choice("12"), "85", f"{draw.randint(1, 12):02}", f"{draw.randint(1, 95):02}", "006", digits(3, draw))
    return " ".join((*parts, nir.calc_check_digits("".join(parts))))


def an_iban(draw: random.Random) -> str:
    body = digits(18, draw)
    return grouped(f"DE{iban.calc_check_digits(f'DE00{body}')}{body}", 4, " ")


def a_dni(draw: random.Random) -> str:
    number = digits(8, draw)
    return number + dni.calc_check_digit(number)


INTERNATIONAL, NATIONAL = phonenumbers.PhoneNumberFormat.INTERNATIONAL, phonenumbers.PhoneNumberFormat.NATIONAL
KINDS: dict[str, Callable[[random.Random], str]] = {
    "phone US": lambda draw: phone("US", NATIONAL, draw).replace("(", "").replace(") ", "-"),
    "phone DE": lambda draw: phone("DE", NATIONAL, draw),
    "phone FR": lambda draw: phone("FR", NATIONAL, draw),
    "phone ES": lambda draw: phone("ES", NATIONAL, draw),
    "phone +": lambda draw: phone(draw.choice(("DE", "GB", "US", "IT", "PT", "BR", "NL")), INTERNATIONAL, draw),
    "card": lambda draw: grouped(card(draw), 4, draw.choice(" -/_")),
    "card, single": lambda draw: grouped(card(draw), 1, " "),
    "iban": an_iban,
    "ssn": an_ssn,
    "cpf": a_cpf,
    "nir": a_nir,
    "dni": a_dni,
    "ip": lambda draw: ".".join(str(draw.randint(11, 199)) for _ in range(4)),
    "email": lambda draw: f"ann{digits(4, draw)}@example.org",
}


def test_a_row_of_two_values_leaves_at_most_three_digits() -> None:
    draw = random.Random(20261201)
    left, n_pairs = Counter[tuple[str, str, str]](), 0
    examples = {}
    for first, second, gap in product(KINDS, KINDS, SEPARATORS):
        for _ in range(2):
            text = f"Call {KINDS[first](draw)}{gap}{KINDS[second](draw)}{')' if '(' in gap else ''}"
            n_pairs += 1
            if n_digits_left(text) >= 4:
                left[first, second, gap] += 1
                examples[first, second, gap] = f"{text} -> {redacted(text)}"
    assert left.total() <= MOST_LEFT * n_pairs, (left.total(), n_pairs, list(examples.values())[:30])


@pytest.mark.parametrize("kind", KINDS)
def test_each_of_these_values_is_found_alone(kind: str) -> None:
    draw = random.Random(20261202)
    texts = [f"Call {KINDS[kind](draw)}." for _ in range(50)]
    assert [text for text in texts if n_digits_left(text) >= 4] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Call +49 30 9830628. 559-292-9000", "Call [PHONE_1]. [PHONE_2]"),
        ("call 9472 7916 9472 7917", "call [PHONE_1] [PHONE_2]"),
        ("in room 12 0151 2345678", "in room 12 [PHONE_1]"),
        ("4539 1488 0343 6467", "[CARD_1]"),
        ("3782/822463/10005", "[CARD_1]"),
        ("4000_0566_5566_5556", "[CARD_1]"),
        ("4 2 4 2 4 2 4 2 4 2 4 2 4 2 4 2", "[CARD_1]"),
        ("460-89-9847 4539 1488 0343 6467 12345678Z", "[NATIONAL_ID_1] [CARD_1] [NATIONAL_ID_2]"),
    ],
)
def test_the_reading_that_leaves_the_fewest_digits_counts(text: str, expected: str) -> None:
    assert redacted(text) == expected


def test_a_table_of_numbers_is_not_cut_into_phone_numbers() -> None:
    """Those that remain look like a French number."""
    draw = random.Random(20261203)
    tables = ["text " + " ".join(digits(draw.randint(1, 2), draw) for _ in range(30)) for _ in range(200)]
    tables += ["values " + " ".join(digits(draw.randint(2, 4), draw) for _ in range(20)) for _ in range(200)]
    wrong = [text for text in tables if redacted(text) != text]
    assert len(wrong) <= 0.1 * len(tables), wrong
