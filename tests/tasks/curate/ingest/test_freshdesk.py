"""Freshdesk on loopback: whatever it does and whenever we are killed, tickets are there once, and what goes is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ConfigError, ServiceError
from schemas.remote_source import FreshdeskSource
from tasks.curate.ingest import rest_pages
from tasks.curate.ingest.bring import bring_in, ingest_folder
from tests.support.freshdesk_desk import AGENT, KEY, FreshdeskDesk, freshdesk_desk
from tests.support.ingest_process import DELAY_S
from tests.support.synced import fingerprint, removed, sync, tickets

VARIABLE = "DESK_KEY"


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[FreshdeskDesk]:
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setattr(rest_pages, "FIRST_DELAY_S", DELAY_S)
    with freshdesk_desk() as desk:
        yield desk


def source(desk: FreshdeskDesk, **options: Any) -> FreshdeskSource:
    usual = {"start": "2026-06-01", "columns": {"category": "fields.area"}, "page_size": 2, "requests_per_minute": 700}
    key = f"${{env:{VARIABLE}}}"
    return FreshdeskSource(kind="freshdesk", base_url=desk.url, api_key=key, **{**usual, **options})


def busy(desk: FreshdeskDesk) -> None:
    for number in range(1, 6):
        desk.add(number)


def test_tickets_hold_their_question_and_get_their_last_public_answer(desk: FreshdeskDesk, tmp_path: Path) -> None:
    busy(desk)
    said = {"incoming": False, "created_at": "2026-06-01T11:00:00Z", "private": False, "user_id": AGENT}
    desk.conversations[2] += [
        {**said, "id": 27, "private": True, "body_text": "note"},
        {**said, "id": 28, "incoming": True, "user_id": 102, "body_text": "Thanks!"},
        {**said, "id": 29, "body_text": "Bye."},
    ]
    desk.add(6, status=2)
    desk.add(7, status=12)
    desk.add(8, source=10)  # an agent began it: the customer's first words are in the conversation
    desk.conversations[8] = [
        {**said, "id": 81, "incoming": True, "user_id": 108, "body_text": "Why do you write?"},
        {**said, "id": 82, "body_text": "Because."},
    ]
    found = tickets(table := sync(source(desk), tmp_path))
    assert {key: found["1"][key] for key in ("body", "reply", "category", "customer_id", "channel", "priority")} == {
        "body": "Question 1, please help.", "reply": "Answer 1 of the desk.", "category": "billing",
        "customer_id": "101", "channel": "email", "priority": "high",
    }  # fmt: skip
    assert (found["2"]["body"], found["2"]["reply"]) == ("Question 2, please help.", "Bye.")
    assert (found["8"]["body"], found["8"]["reply"]) == ("Why do you write?", "Because.")
    assert removed(table) == {"6": "other_status", "7": "other_status"}
    assert not any("tickets/6/" in path for path in desk.asked)
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_dropped) == (8, 6, 2)
    assert "7" in tickets(sync(source(desk, statuses=("resolved", "12")), tmp_path))


def test_an_account_that_misbehaves_gives_the_rows_of_one_that_does_not(desk: FreshdeskDesk, tmp_path: Path) -> None:
    busy(desk)
    sync(source(desk), tmp_path / "calm")
    n_calm = len(desk.asked)
    moods = ("429", "500", "half", "cut", "wrong")
    desk.plan = {n_calm + 2 + 2 * place: mood for place, mood in enumerate((*moods, *moods))}
    table = sync(source(desk), tmp_path / "wild")
    assert fingerprint(source(desk), tmp_path / "wild") == fingerprint(source(desk), tmp_path / "calm")
    assert len(tickets(table)) == 5
    assert len(desk.asked) - n_calm >= n_calm + 10  # the moods were met


def test_conversations_are_asked_for_once_for_each_version_of_a_ticket(desk: FreshdeskDesk, tmp_path: Path) -> None:
    busy(desk)
    sync(source(desk), tmp_path)
    n_asked = len(desk.asked)
    sync(source(desk), tmp_path)
    assert not any("conversations" in path for path in desk.asked[n_asked:])
    assert len(desk.asked) - n_asked <= 5  # the end of each of the three lists
    desk.conversations[4][1]["body_text"] = "A better answer."
    desk.touch(4)
    n_asked = len(desk.asked)
    assert tickets(sync(source(desk), tmp_path))["4"]["reply"] == "A better answer."
    assert [path.split("/")[4] for path in desk.asked[n_asked:] if "conversations" in path] == ["4"]


def test_a_ticket_that_changes_while_pages_are_read_is_there_and_hides_no_other(
    desk: FreshdeskDesk, tmp_path: Path
) -> None:
    for number in range(1, 10):
        desk.add(number)
    desk.touch(*range(3, 10))  # seven in one moment, more than three pages of it
    seen: list[str] = []

    def meanwhile(path: str) -> None:
        seen.append(path)
        if sum("conversations" not in each for each in seen) in (3, 4, 5):
            desk.touch(3 + len(seen) % 3, subject="Changed")

    desk.meanwhile = meanwhile
    assert set(tickets(sync(source(desk), tmp_path))) == {str(number) for number in range(1, 10)}


def test_what_is_deleted_or_spam_goes_and_comes_back_when_it_is_restored(desk: FreshdeskDesk, tmp_path: Path) -> None:
    busy(desk)
    spec = source(desk)
    sync(spec, tmp_path)
    folder = ingest_folder(spec, tmp_path / "landed")
    assert folder is not None
    assert b"Question 1" in b"".join(path.read_bytes() for path in folder.iterdir())
    desk.listed |= {1: "deleted", 2: "spam"}
    desk.touch(1, 2)
    del desk.conversations[3]  # gone between the list and its conversations
    desk.touch(3)
    table = sync(spec, tmp_path)
    assert removed(table) == {"1": "deleted_upstream", "2": "deleted_upstream", "3": "deleted_upstream"}
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_dropped) == (5, 2, 3)
    held = b"".join(path.read_bytes() for path in folder.iterdir())
    assert not any(text in held for text in (b"Question 1", b"Answer 2", b"Question 3"))
    del desk.listed[1]
    desk.touch(1)
    assert set(tickets(sync(spec, tmp_path))) == {"1", "4", "5"}


def test_what_is_no_ticket_is_quarantined_and_counted(
    desk: FreshdeskDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(desk)
    whole = desk.list_tickets
    monkeypatch.setattr(
        desk, "list_tickets", lambda query: [*whole(query), "oops"] if query.get("filter") is None else []
    )
    table = sync(source(desk, page_size=100), tmp_path)
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_quarantined) == (6, 5, 1)
    assert list(removed(table).values()) == ["TG0267"]


def test_a_refused_login_says_so_and_holds_no_key(
    desk: FreshdeskDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "wrong-key-1")
    with pytest.raises(ServiceError, match=r"TG0707.*Freshdesk refuses the login") as raised:
        bring_in(source(desk), root=tmp_path, landed=tmp_path / "landed")
    assert "wrong-key" not in str(raised.value)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match=f"TG0114.*{VARIABLE}"):
        bring_in(source(desk), root=tmp_path, landed=tmp_path / "landed")


def test_real_answers_of_the_api_are_read(desk: FreshdeskDesk, tmp_path: Path, shared_data: Path) -> None:
    samples = shared_data / "freshdesk_fixtures" / "freshdesk" / "v2" / "tests" / "sample_json_data"
    listed = json.loads((samples / "all_tickets.json").read_bytes())
    said = json.loads((samples / "conversations.json").read_bytes())
    by_id = {ticket["id"]: ticket for ticket in listed}
    desk.tickets = by_id
    desk.conversations = {number: [{**each, "id": 100 * number + each["id"]} for each in said] for number in by_id}
    spec = source(desk, start="2015-01-01", statuses=("open", "pending", "resolved", "closed"), columns={})
    table = sync(spec, tmp_path)
    assert table.rows.n_in == len(by_id) > 0
    for number, row in tickets(table).items():
        assert row["customer_id"] == str(by_id[int(number)]["requester_id"])
        assert row["reply"] == "This is a reply"
