"""Templates, messages and conversations."""

from datetime import datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError, DataError
from schemas.training import PromptSpec
from tasks.tickets.prompts import (
    check_template,
    conversation_for,
    dump_messages,
    messages_for,
    parse_messages,
    render_text,
)

TURNS = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "On its way."}]


def test_null_columns_render_empty_and_times_as_iso() -> None:
    row = {"subject": None, "body": "Help", "created_at": datetime(2026, 6, 1, 8, 30)}
    assert render_text("[{subject}] {body} {created_at}", row) == "[] Help 2026-06-01T08:30:00"


@given(st.text())
def test_braces_in_a_ticket_are_text(body: str) -> None:
    assert render_text("a {body} b", {"body": body}) == f"a {body} b"


@pytest.mark.parametrize("template", ["{body.__class__}", "{0}", "{body!r}", "{body:>9}", "{bodi}", "{body", "{}"])
def test_a_template_cannot_run_code(template: str) -> None:
    with pytest.raises(ConfigError, match="TG0170"):
        render_text(template, {"body": "x"})


def test_check_template_names_each_column_once() -> None:
    assert check_template("{subject} {body} {subject}") == ("subject", "body")


def test_a_table_without_the_column_is_an_error() -> None:
    with pytest.raises(DataError, match="TG0318"):
        render_text("{body}", {"subject": "x"})


def test_an_empty_system_text_gives_no_system_turn() -> None:
    assert messages_for(PromptSpec(), {"body": "Hello"}) == [{"role": "user", "content": "Hello"}]


def test_the_answer_is_the_last_turn_without_surrounding_white_space() -> None:
    row = {"body": "Hello", "reply": "\n Hi there. \n"}
    assert conversation_for(PromptSpec(), row)[-1] == {"role": "assistant", "content": "Hi there."}


def test_a_rows_own_conversation_takes_precedence_and_gets_the_system_text() -> None:
    row = {"body": "unused", "reply": "unused", "messages": dump_messages(TURNS)}
    turns = conversation_for(PromptSpec(system="Be kind."), row)
    assert turns == [{"role": "system", "content": "Be kind."}, *TURNS]
    assert messages_for(PromptSpec(system="Be kind."), row) == turns[:-1]


def test_a_conversation_keeps_its_own_system_text() -> None:
    own = [{"role": "system", "content": "Mine."}, *TURNS]
    assert conversation_for(PromptSpec(system="Other."), {"messages": dump_messages(own)}) == own


@pytest.mark.parametrize(
    "turns",
    [
        "not json",
        [],
        {},
        [{"role": "user", "content": "a"}],
        [{"role": "assistant", "content": "a"}],
        [*TURNS, {"role": "user", "content": "again"}],
        [TURNS[0], TURNS[0], TURNS[1]],
        [TURNS[0], {"role": "tool", "content": "a"}],
        [TURNS[0], {"role": "assistant", "content": None}],
        [TURNS[0], {"role": "assistant"}],
        [{"content": "a"}, TURNS[1]],
        [TURNS[0], {"role": "assistant", "content": "  "}],
        [*TURNS, {"role": "system", "content": "late"}, TURNS[1]],
        ["user", "assistant"],
    ],
)
def test_text_that_a_template_would_drop_is_refused(turns: object) -> None:
    stored = turns if isinstance(turns, str) else orjson.dumps(turns).decode()
    with pytest.raises(DataError, match="TG0301") as caught:
        parse_messages(stored)
    assert "Where is it" not in str(caught.value)
