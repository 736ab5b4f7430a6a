"""The step `mail`: quotes and signatures leave the texts, rows stay and are counted."""

from typing import Any

import orjson
import pytest

from schemas.curation_steps import MailStep
from tasks.curate import mail_step
from tasks.curate.mail_step import strip_mail

MAIL = "The parcel is lost.\n\nBest regards\nAnn Weber\n\nOn 3 May at 10:12 Bob wrote:\n> Where is it?"
REPLY = "We send a new one.\n\nKind regards,\nBob Stone"


def test_quotes_and_signatures_leave_every_text(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    messages = [{"role": "user", "content": MAIL, "n": 1}, {"role": "assistant", "content": REPLY}]
    tickets = make_tickets(
        [
            {"ticket_id": "a", "body": MAIL, "reply": REPLY, "messages": orjson.dumps(messages).decode()},
            {"ticket_id": "b", "body": "Hi Ann, it is lost.", "reply": None, "messages": "no JSON\n> at all"},
        ]
    )
    result = strip_mail(tickets=tickets, step=MailStep(uses="mail"), out=new_folder())
    rows, before = rows_of(result.tickets), rows_of(tickets.tickets)
    assert (rows["a"]["body"], rows["a"]["reply"]) == ("The parcel is lost.", "We send a new one.")
    assert orjson.loads(rows["a"]["messages"]) == [
        {"role": "user", "content": "The parcel is lost.", "n": 1},
        {"role": "assistant", "content": "We send a new one."},
    ]
    assert rows["b"] == before["b"]
    assert {name: value for name, value in rows["a"].items() if name not in mail_step.TEXTS} == {
        name: value for name, value in before["a"].items() if name not in mail_step.TEXTS
    }
    assert result.notes == {"stripped_tickets": 1, "stripped_body": 1, "stripped_reply": 1, "stripped_messages": 1}
    assert (result.rows.n_in, result.rows.n_out) == (2, 2)


def test_only_the_named_parts_leave_and_no_text_becomes_empty(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    tickets = make_tickets([{"ticket_id": "a", "body": MAIL, "reply": "Best regards\nAnn Weber"}])
    result = strip_mail(tickets=tickets, step=MailStep(uses="mail", parts=("signature",)), out=new_folder())
    row = rows_of(result.tickets)["a"]
    assert "Where is it?" in row["body"]
    assert "Ann Weber" not in row["body"]
    assert row["reply"] == "Best regards\nAnn Weber"


def test_a_row_on_which_it_raises_is_quarantined(
    make_tickets: Any, new_folder: Any, rows_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strip_or_raise(texts: Any, parts: Any) -> Any:
        if "boom" in texts.to_pylist():
            raise ValueError("boom")
        return texts

    monkeypatch.setattr(mail_step, "strip_column", strip_or_raise)
    tickets = make_tickets([{"ticket_id": "a", "body": "boom"}, {"ticket_id": "b", "body": "it works"}])
    result = strip_mail(tickets=tickets, step=MailStep(uses="mail"), out=new_folder())
    assert list(rows_of(result.tickets)) == ["b"]
    assert rows_of(result.removed)["a"]["outcome"] == "quarantined"
    assert (result.rows.n_in, result.rows.n_out, result.rows.n_quarantined) == (2, 1, 1)
