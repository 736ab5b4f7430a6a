"""People's names with the real spaCy model; slow to load, so few texts."""

import importlib.util
import json
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.curation_steps import NamesSpec, RedactStep
from schemas.errors import ConfigError
from tasks.curate.redact import redact_row, redact_tickets
from tasks.curate.redaction.names import find_names, load_analyzer, selects

GATE = RedactStep(uses="redact", types=("email", "name"), names=NamesSpec(mode="gate"))
ALL = RedactStep(uses="redact", types=("email", "name"), names=NamesSpec(mode="all"))


@pytest.mark.parametrize(
    "text",
    [
        "It is broken.\n\nRegards,\nAnn",
        "Dear Mr. Smith, it is late",
        "my name is Peter",
        "Thanks - Maria",
        "Mit freundlichen Grüßen\nÖzlem",
        "Hi, Élodie here",
    ],
)
def test_a_greeting_a_signature_or_an_introduction_opens_the_gate(text: str) -> None:
    assert selects(text)


@pytest.mark.parametrize("text", ["It is broken.", "Where is my order NB-48213?", "thanks for nothing", ""])
def test_texts_without_one_keep_it_shut(text: str) -> None:
    assert not selects(text)


@pytest.mark.needs_extra("names")
def test_names_are_replaced_and_the_same_name_has_one_number() -> None:
    row = {
        "subject": "Late parcel",
        "body": "My parcel is late.\nRegards, Maria Garcia",
        "reply": "Dear Maria Garcia, John Miller will call you.",
    }
    redacted, counts = redact_row(row, GATE)
    assert redacted["subject"] == "Late parcel"
    assert redacted["body"] == "My parcel is late.\nRegards, [NAME_1]"
    assert redacted["reply"] == "Dear [NAME_1], [NAME_2] will call you."
    assert counts == {"name": 3}


@pytest.mark.needs_extra("names")
def test_the_gate_leaves_other_tickets_alone_and_all_does_not(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    messages = json.dumps([{"role": "user", "content": "Where is it?\nRegards,\nMaria Garcia"}])
    rows = [
        {"ticket_id": "1", "body": "We spoke with John Miller yesterday."},
        {"ticket_id": "2", "body": "We spoke with John Miller yesterday.", "messages": messages},
        {"ticket_id": "3", "body": None},
    ]
    tickets = make_tickets(rows)
    gated = redact_tickets(tickets=tickets, step=GATE, out=new_folder())
    assert rows_of(gated.tickets)["1"]["body"] == "We spoke with John Miller yesterday."
    assert rows_of(gated.tickets)["2"]["body"] == "We spoke with [NAME_1] yesterday."
    assert json.loads(rows_of(gated.tickets)["2"]["messages"])[0]["content"].endswith("[NAME_2]")
    assert gated.notes == {"redacted_email": 0, "redacted_name": 2, "redacted_tickets": 1}
    every = redact_tickets(tickets=tickets, step=ALL, out=new_folder())
    assert rows_of(every.tickets)["1"]["body"] == "We spoke with [NAME_1] yesterday."
    for step, result in ((GATE, gated), (ALL, every)):
        for row in rows_of(result.tickets).values():
            texts = next({"body": None, "messages": None} | r for r in rows if r["ticket_id"] == row["ticket_id"])
            assert redact_row(texts, step)[0]["body"] == row["body"]


@pytest.mark.needs_extra("names")
def test_a_name_inside_another_value_is_not_replaced_twice() -> None:
    redacted, _ = redact_row({"body": "Dear John Miller, write to john.miller@example.org"}, ALL)
    assert redacted["body"] == "Dear [NAME_1], write to [EMAIL_1]"


@pytest.mark.needs_extra("names")
def test_a_sample_measures_what_is_left_and_redacts_no_name(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    rows = [{"ticket_id": f"{n}", "body": "Regards, Maria Garcia" if n % 2 else "It is broken."} for n in range(8)]
    tickets = make_tickets(rows)
    step = RedactStep(uses="redact", types=("email",), names=NamesSpec(mode="sample", sample_tickets=8))
    result = redact_tickets(tickets=tickets, step=step, out=new_folder())
    assert rows_of(result.tickets)["1"]["body"] == "Regards, Maria Garcia"
    assert result.notes["names_sampled"] == 8
    assert result.notes["names_found_permille"] == 500
    part = NamesSpec(mode="sample", sample_tickets=3, seed=1)
    small = RedactStep(uses="redact", types=("email",), names=part)
    first = redact_tickets(tickets=tickets, step=small, out=new_folder())
    again = redact_tickets(tickets=make_tickets(rows[::-1]), step=small, out=new_folder())
    assert first.notes["names_sampled"] == 3
    assert first.notes == again.notes


@pytest.mark.needs_extra("names")
def test_a_long_text_is_read_in_pieces_and_names_keep_their_place() -> None:
    filler = "The parcel came late and the box was wet. " * 700
    text = f"{filler}Regards, Maria Garcia. {filler}"
    found = [text[start:end] for start, end, _ in find_names(text, min_score=0.6)]
    assert "Maria Garcia" in found


def test_names_without_the_type_are_refused_unless_they_are_only_measured() -> None:
    with pytest.raises(ValidationError, match="replaces nothing"):
        RedactStep(uses="redact", names=NamesSpec(mode="gate"))
    assert RedactStep(uses="redact", names=NamesSpec(mode="sample")).names is not None


def test_a_missing_extra_is_an_error_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    load_analyzer.cache_clear()
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "presidio_analyzer" else real(name))
    with pytest.raises(ConfigError, match="TG0112") as refused:
        redact_row({"body": "Dear Ann"}, GATE)
    assert "presidio_analyzer" in refused.value.message
    assert "the extra `names`" in refused.value.message
    load_analyzer.cache_clear()
