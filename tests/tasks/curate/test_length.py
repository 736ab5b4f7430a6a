"""Bounds on lengths: the first violated bound drops the row, with the length in the reason."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.curation_steps import LengthStep
from tasks.curate.length import drop_by_length


def test_the_first_violated_bound_drops_the_row(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    tickets = make_tickets(
        [
            {"ticket_id": "kept", "body": "abc", "reply": "abcdef"},
            {"ticket_id": "short", "body": "ab", "reply": "x"},
            {"ticket_id": "long", "body": "abcdef", "reply": "abc"},
            {"ticket_id": "reply-short", "body": "abc", "reply": "ab"},
            {"ticket_id": "reply-long", "body": "abc", "reply": "abcdefg"},
            {"ticket_id": "no-body", "body": None, "reply": "abc"},
            {"ticket_id": "no-reply", "body": "abc", "reply": None},
        ]
    )
    step = LengthStep(uses="length", min_body=3, max_body=5, min_reply=3, max_reply=6)
    result = drop_by_length(tickets=tickets, step=step, out=new_folder())
    assert list(rows_of(result.tickets)) == ["kept"]
    removed = rows_of(result.removed)
    assert {name: row["code"] for name, row in removed.items()} == {
        "short": "body_too_short",
        "long": "body_too_long",
        "reply-short": "reply_too_short",
        "reply-long": "reply_too_long",
        "no-body": "body_too_short",
        "no-reply": "reply_too_short",
    }
    assert removed["short"]["reason"] == "the body has 2 characters, fewer than 3"
    assert removed["reply-long"]["reason"] == "the reply has 7 characters, more than 6"
    assert (removed["short"]["outcome"], removed["short"]["source_line"]) == ("dropped", 2)
    assert result.notes == {
        "dropped_body_too_short": 2,
        "dropped_body_too_long": 1,
        "dropped_reply_too_short": 2,
        "dropped_reply_too_long": 1,
    }
    assert (result.rows.n_in, result.rows.n_out, result.rows.n_dropped) == (7, 1, 6)


def test_a_missing_reply_passes_without_a_least_length(make_tickets: Any, new_folder: Any) -> None:
    tickets = make_tickets([{"ticket_id": "a", "body": "abc"}])
    result = drop_by_length(tickets=tickets, step=LengthStep(uses="length"), out=new_folder())
    assert result.rows.n_out == 1


def test_characters_are_counted_and_not_bytes(make_tickets: Any, new_folder: Any) -> None:
    tickets = make_tickets([{"ticket_id": "a", "body": "né👍"}])
    step = LengthStep(uses="length", min_body=3, max_body=3)
    assert drop_by_length(tickets=tickets, step=step, out=new_folder()).rows.n_out == 1


@pytest.mark.parametrize("bounds", [{"min_body": 9, "max_body": 8}, {"min_reply": 9, "max_reply": 8}])
def test_bounds_that_no_text_satisfies_are_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="is above"):
        LengthStep(uses="length", **bounds)
