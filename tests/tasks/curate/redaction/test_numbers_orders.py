"""Order numbers by the user's patterns: never another number, and redacted only with their type."""

from typing import Any

import pytest

from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError
from tasks.curate.redact import redact_row, redact_tickets
from tasks.curate.redaction.numbers import OrderNumbers

TEXT = "Where is 4111111111111111? Call 0151 2345678 about 460-89-9847."
PATTERNS = (r"\b4[0-9]{15}\b", r"0151 [0-9]{7}", r"\b460-[0-9-]+\b")


def redacted(text: str, **options: Any) -> str | None:
    return redact_row({"body": text}, RedactStep(uses="redact", **options))[0]["body"]


def test_without_patterns_they_are_taken_for_what_they_look_like() -> None:
    assert redacted(TEXT) == "Where is [CARD_1]? Call [PHONE_1] about [NATIONAL_ID_1]."


def test_an_order_number_is_no_card_no_phone_and_no_id() -> None:
    assert redacted(TEXT, order_numbers=PATTERNS) == TEXT


def test_with_the_type_it_is_replaced_and_equal_ones_have_one_number() -> None:
    text = "NB-48213 and NB-48214, NB-48213 again"
    options = {"order_numbers": (r"\bNB-[0-9]{5}\b",), "types": ("order_number",)}
    assert redacted(text, **options) == "[ORDER_NUMBER_1] and [ORDER_NUMBER_2], [ORDER_NUMBER_1] again"


def test_the_reference_stays_among_the_other_order_numbers() -> None:
    step = RedactStep(uses="redact", types=("order_number",), order_numbers=("NB-[0-9]{5}",))
    row, counts = redact_row({"body": "NB-48213 or NB-48214", "reference": "NB-48213"}, step)
    assert row["body"] == "NB-48213 or [ORDER_NUMBER_1]"
    assert counts == {"order_number": 1}


def test_a_pattern_does_not_reach_into_placeholders() -> None:
    options = {"order_numbers": ("[A-Z]+_[0-9]+",), "types": ("order_number", "email")}
    assert redacted("[EMAIL_1] ann@example.org ORDER_7", **options) == "[EMAIL_1] [EMAIL_2] [ORDER_NUMBER_1]"


def test_patterns_mean_what_they_mean_in_re2_and_marks_in_the_text_do_no_harm() -> None:
    text = "\ue001é NB-1\ue002 ٣ 漢NB-22$"
    spans = [text[start:end] for start, end, _ in OrderNumbers((r"NB-\d+",)).find(text)]
    assert spans == ["NB-1", "NB-22"]


@pytest.mark.parametrize("pattern", ["NB-(?=[0-9])", r"(a)\1", "[0-9", "*"])
def test_a_pattern_that_is_no_re2_is_refused_with_its_text(pattern: str, make_tickets: Any, new_folder: Any) -> None:
    step = RedactStep(uses="redact", order_numbers=("NB-[0-9]+", pattern))
    with pytest.raises(ConfigError, match="TG0190") as refused:
        redact_tickets(tickets=make_tickets([{"ticket_id": "1"}]), step=step, out=new_folder())
    assert f"`{pattern}`" in refused.value.message


@pytest.mark.parametrize("pattern", ["[0-9]*", "(?:NB)?"])
def test_a_pattern_that_matches_the_empty_text_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="matches the empty text"):
        OrderNumbers((pattern,))
