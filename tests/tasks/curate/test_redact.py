"""Placeholders: stable inside a ticket, over all its texts, counted, and never at the cost of the reference."""

import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.curation_steps import RedactStep
from tasks.curate.redact import redact_row, redact_tickets

REDACT = RedactStep(uses="redact")


def test_one_value_has_one_number_in_subject_body_reply_and_messages(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    messages = [
        {"role": "user", "content": "I am bob@example.org"},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello ann@example.org"}]},
    ]
    tickets = make_tickets(
        [
            {
                "ticket_id": "1",
                "subject": "From ann@example.org",
                "body": "Cc bob@example.org, call +49 151 23456789",
                "reply": "Dear ANN@example.org, we wrote to bob@example.org.",
                "messages": json.dumps(messages),
            }
        ]
    )
    result = redact_tickets(tickets=tickets, step=REDACT, out=new_folder())
    row = rows_of(result.tickets)["1"]
    assert row["subject"] == "From [EMAIL_1]"
    assert row["body"] == "Cc [EMAIL_2], call [PHONE_1]"
    assert row["reply"] == "Dear [EMAIL_1], we wrote to [EMAIL_2]."
    assert [message["content"] for message in json.loads(row["messages"])] == [
        "I am [EMAIL_2]",
        [{"type": "text", "text": "Hello [EMAIL_1]"}],
    ]
    assert result.notes["redacted_email"] == 6
    assert result.notes["redacted_phone"] == 1
    assert result.notes["redacted_tickets"] == 1


def test_numbering_restarts_in_each_ticket_and_no_row_is_lost(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    tickets = make_tickets(
        [
            {"ticket_id": "1", "body": "ann@example.org"},
            {"ticket_id": "2", "body": "bob@example.org"},
            {"ticket_id": "3", "body": None},
        ]
    )
    result = redact_tickets(tickets=tickets, step=REDACT, out=new_folder())
    assert [row["body"] for row in rows_of(result.tickets).values()] == ["[EMAIL_1]", "[EMAIL_1]", None]
    assert (result.rows.n_in, result.rows.n_out) == (3, 3)
    assert rows_of(result.removed) == {}


def test_placeholders_already_in_the_text_keep_their_meaning(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    tickets = make_tickets([{"ticket_id": "1", "subject": "ann@example.org", "body": "as [EMAIL_1] said"}])
    once = redact_tickets(tickets=tickets, step=REDACT, out=new_folder())
    assert rows_of(once.tickets)["1"]["subject"] == "[EMAIL_2]"
    twice = redact_tickets(tickets=once, step=REDACT, out=new_folder())
    assert twice.tickets.read_bytes() == once.tickets.read_bytes()
    assert twice.notes["redacted_tickets"] == 0


def test_the_reference_that_the_answer_must_repeat_stays(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    number = "4111111111111111"  # an order number that happens to pass the card check
    body = f"Where is {number}?"
    tickets = make_tickets(
        [{"ticket_id": "1", "body": body, "reference": number}, {"ticket_id": "2", "body": body, "reference": None}]
    )
    rows = rows_of(redact_tickets(tickets=tickets, step=REDACT, out=new_folder()).tickets)
    assert rows["1"]["body"] == body
    assert rows["2"]["body"] == "Where is [CARD_1]?"


@pytest.mark.parametrize("column", ["category", "priority", "product", "channel", "reference"])
@pytest.mark.parametrize(
    ("value", "redacted"),
    [
        ("ann.smith@example.org", "[EMAIL_1]"),
        ("4111 1111 1111 1111", "[CARD_1]"),
        ("DE89 3704 0044 0532 0130 00", "[IBAN_1]"),
        ("billing", "billing"),
        ("K-4158732700", "K-4158732700"),
    ],
)
def test_labels_and_references_are_redacted(
    make_tickets: Any, new_folder: Any, rows_of: Any, column: str, value: str, redacted: str
) -> None:
    tickets = make_tickets([{"ticket_id": "1", "body": f"It is {value}.", column: value}, {"ticket_id": "2"}] * 2)
    result = redact_tickets(tickets=tickets, step=REDACT, out=new_folder())
    assert {row[column] for row in rows_of(result.tickets).values()} == {redacted, None}
    assert rows_of(result.tickets)["1"]["body"] == f"It is {redacted}."
    assert result.notes.get("labels_redacted", 0) == (2 if value != redacted else 0)


def test_replaced_labels_are_counted_for_each_column_and_so_are_labels_that_become_equal(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    people = [f"{name}@example.org" for name in ("ann", "bob", "cid")]
    tickets = make_tickets(
        [
            {"ticket_id": f"{n:02}", "category": people[n % 3], "product": f"case of {people[n % 2]}", "channel": "web"}
            for n in range(12)
        ]
        + [{"ticket_id": "99", "category": "billing", "priority": "559-292-9000", "reference": people[0]}]
    )
    result = redact_tickets(tickets=tickets, step=REDACT, out=new_folder())
    assert {name: n for name, n in result.notes.items() if name.startswith("labels_")} == {
        "labels_redacted": 26, "labels_redacted_category": 12, "labels_redacted_product": 12,
        "labels_redacted_priority": 1, "labels_merged_category": 2, "labels_merged_product": 1,
    }  # fmt: skip
    rows = rows_of(result.tickets).values()
    assert {row["category"] for row in rows} == {"[EMAIL_1]", "billing"}
    assert {row["product"] for row in rows} == {"case of [EMAIL_1]", None}


def test_rows_and_columns_without_personal_data_keep_their_bytes(make_tickets: Any, new_folder: Any) -> None:
    columns = {"category": "billing", "product": "Galaxy S23", "channel": "web", "priority": "high", "reference": "N-1"}
    plain = [{"ticket_id": f"{n:03}", "customer_id": f"C{n}", "body": f"It is {n}.", **columns} for n in range(300)]
    before = make_tickets(plain)
    result = redact_tickets(tickets=before, step=REDACT, out=new_folder())
    assert result.tickets.read_bytes() == before.tickets.read_bytes()
    assert not any(name.startswith("labels_") for name in result.notes)

    planted = [row | ({"product": "ann@example.org"} if n == 7 else {}) for n, row in enumerate(plain)]
    changed = redact_tickets(tickets=make_tickets(planted), step=REDACT, out=new_folder())
    found, wanted = pq.read_table(changed.tickets), pq.read_table(result.tickets)
    assert found.drop_columns("product") == wanted.drop_columns("product")
    assert [n for n, value in enumerate(found["product"].to_pylist()) if value != "Galaxy S23"] == [7]
    assert changed.rows == result.rows


def test_a_table_says_how_many_values_of_each_type_were_redacted_in_a_ticket(
    make_tickets: Any, new_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_PSEUDONYM_KEY", "a key of sixteen letters")
    tickets = make_tickets(
        [
            {"ticket_id": "1", "subject": "bob@x.org", "body": "ann@x.org 203.0.113.7", "reply": "ann@x.org"},
            {"ticket_id": "2", "body": "nothing"},
            {"ticket_id": "3", "messages": '[{"role": "user", "content": "ann@example.org"}]'},
        ]
    )  # fmt: skip
    result = redact_tickets(tickets=tickets, step=REDACT, out=new_folder())
    assert pq.read_table(result.root / "redactions.parquet").to_pylist() == [
        {"ticket_id": "1", "type": "email", "n_values": 3},
        {"ticket_id": "1", "type": "ip", "n_values": 1},
        {"ticket_id": "3", "type": "email", "n_values": 1},
    ]
    hidden = REDACT.model_copy(update={"pseudonymise": ("ticket_id",)})
    result = redact_tickets(tickets=tickets, step=hidden, out=new_folder())
    ids = pq.read_table(result.root / "redactions.parquet").column("ticket_id").to_pylist()
    assert set(ids) < set(pq.read_table(result.tickets).column("ticket_id").to_pylist())


def test_the_companys_own_addresses_stay_however_they_are_written(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    step = RedactStep(uses="redact", keep=("help@shop.example", "@desk.example", "+44 20 7946 0958"))
    reply = "Help@shop.example, ann@desk.example, +44 20 7946-0958; not bob@x.example or help@shop.example.evil"
    table = redact_tickets(new_folder(), tickets=make_tickets([{"ticket_id": "a", "reply": reply}]), step=step)
    row = rows_of(table.tickets)["a"]
    assert row["reply"].startswith("Help@shop.example, ann@desk.example, +44 20 7946-0958; not [EMAIL_1] or [EMAIL_2]")
    assert table.notes["redacted_email"] == 2


def test_types_not_named_stay(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    tickets = make_tickets([{"ticket_id": "1", "body": "ann@example.org 203.0.113.7"}])
    step = RedactStep(uses="redact", types=("ip",))
    result = redact_tickets(tickets=tickets, step=step, out=new_folder())
    assert rows_of(result.tickets)["1"]["body"] == "ann@example.org [IP_1]"
    assert result.notes == {"redacted_ip": 1, "redacted_tickets": 1}


def test_messages_that_are_no_json_are_redacted_and_untouched_ones_keep_their_bytes(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    spaced = '[ {"role": "user",  "content": "hello"} ]'
    tickets = make_tickets(
        [
            {"ticket_id": "1", "messages": '[{"role": "user", "content": "ann@example.org'},
            {"ticket_id": "2", "messages": spaced},
        ]
    )
    rows = rows_of(redact_tickets(tickets=tickets, step=REDACT, out=new_folder()).tickets)
    assert rows["1"]["messages"] == '[{"role": "user", "content": "[EMAIL_1]'
    assert rows["2"]["messages"] == spaced


def test_one_ticket_alone_is_redacted_as_it_would_be_in_the_table(
    make_tickets: Any, new_folder: Any, rows_of: Any
) -> None:
    ticket = {"subject": "From ann@example.org", "body": "See [EMAIL_1], call +49 151 23456789 or Ann@example.org"}
    result = redact_tickets(tickets=make_tickets([{"ticket_id": "1", **ticket}]), step=REDACT, out=new_folder())
    row = rows_of(result.tickets)["1"]
    redacted, counts = redact_row(ticket, REDACT)
    assert redacted == {name: row[name] for name in ticket}
    assert redacted["subject"] == "From [EMAIL_2]"
    assert counts == {"email": 2, "phone": 1}
