"""Numbers of eleven countries: found by checksum and way of writing, and not confused with other numbers."""

import random

import pytest

from tasks.curate.redaction.personal import find_personal


def found_in(text: str) -> list[str]:
    return [text[found.start : found.end] for found in find_personal(text, ["national_id"])]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Here's my SSN: 460-89-9847", "460-89-9847"),
        ("mine is 460-89-9847.", "460-89-9847"),
        ("social security number 460899847", "460899847"),
        ("ssn:460-89-9847", "460-89-9847"),
        ("SSN#460899847", "460899847"),
        ("460899847 is my SSN", "460899847"),
        ("ITIN 912-90-3456", "912-90-3456"),
        ("National Insurance AB 12 34 56 C", "AB 12 34 56 C"),
        ("I am AB123456C", "AB123456C"),
        ("Steuer-ID: 36 574 261 809", "36 574 261 809"),
        ("meine IdNr 36574261809", "36574261809"),
        ("NIR 2 95 10 99 126 111 93", "2 95 10 99 126 111 93"),
        ("sécurité sociale 295109912611193", "295109912611193"),
        ("mi DNI es 54362315K", "54362315K"),
        ("54362315-K", "54362315-K"),
        ("54.362.315-K", "54.362.315-K"),
        ("NIE X-2482300W", "X-2482300W"),
        ("codice fiscale RCCMNL83S18D969H", "RCCMNL83S18D969H"),
        ("sono rccmnl83s18d969h", "rccmnl83s18d969h"),
        ("BSN 1112.22.333", "1112.22.333"),
        ("mijn burgerservicenummer is 111222333", "111222333"),
        ("CPF 390.533.447-05", "390.533.447-05"),
        ("390.533.447-05", "390.533.447-05"),
        ("meu CPF: 39053344705", "39053344705"),
        ("Aadhaar 2341 2341 2346", "2341 2341 2346"),
        ("2341-2341-2346 please", "2341-2341-2346"),
        ("aadhaar number 234123412346", "234123412346"),
        ("PESEL 44051401359", "44051401359"),
        ("880320-0016", "880320-0016"),
        ("personnummer 8803200016", "8803200016"),
        ("personnummer 19880320-0016", "19880320-0016"),
        ("my national id is 44051401359", "44051401359"),
    ],
)
def test_a_number_is_found_whole(text: str, value: str) -> None:
    assert found_in(text) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "order 460-89-9847",
        "460899847",
        "460 89 9847",
        "SSN 000-12-3456",
        "SSN 666-12-3456",
        "part AB123456C",
        "tracking number AB 12 34 56 C",
        "GB123456A and BG123456A",
        "36 574 261 809 yen",
        "36574261809",
        "Steuer-ID 36574261808",
        "295109912611193",
        "2 95 10 99 126 111 94",
        "54362315L",
        "article 54362315K",
        "X-2482300A",
        "RCCMNL83S18D969I",
        "111222333",
        "390.533.447-06",
        "39053344705",
        "234123412346",
        "2341 2341 2347",
        "parcel 2341 2341 2346",
        "44051401359",
        "order number 44051401359",
        "8803200016",
        "880320-0018",
        "889920-0016",
        "2026-06-01",
        "550e8400-e29b-41d4-a716-446655440000",
        "1-460-89-9847 and 460-89-9847-2",
        "call 2341 2341 2346",
    ],
)
def test_other_numbers_wrong_checksums_and_numbers_after_telling_words_are_left_alone(text: str) -> None:
    assert found_in(text) == []


def test_a_bare_run_of_digits_is_never_an_id_without_a_word_that_says_so() -> None:
    """One in ten passes a checksum: 20,000 order numbers would give some 1,500 ids."""
    draw = random.Random(20260601)
    numbers = ["".join(draw.choices("0123456789", k=draw.randint(8, 16))) for _ in range(20_000)]
    assert found_in(". It is ".join(numbers)) == []


def test_equal_numbers_have_one_form() -> None:
    found = find_personal("SSN 460-89-9847, SSN 460899847, SSN 460 89 9847", ["national_id"])
    assert {value.key for value in found} == {"460899847"}
