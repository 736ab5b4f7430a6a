"""Intercom on loopback: whatever it does and whenever we are killed, conversations are there once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ServiceError
from schemas.remote_source import IntercomSource
from tasks.curate.ingest import rest_pages
from tasks.curate.ingest.bring import bring_in, ingest_folder
from tests.support.ingest_process import DELAY_S
from tests.support.intercom_desk import AGENT, TOKEN, IntercomDesk, intercom_desk
from tests.support.synced import fingerprint, removed, sync, tickets

VARIABLE = "DESK_TOKEN"


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[IntercomDesk]:
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.setattr(rest_pages, "FIRST_DELAY_S", DELAY_S)
    with intercom_desk() as desk:
        yield desk


def source(desk: IntercomDesk, **options: Any) -> IntercomSource:
    usual = {"start": "2026-06-01", "columns": {"category": "fields.area"}, "page_size": 2, "requests_per_minute": 5000}
    token = f"${{env:{VARIABLE}}}"
    return IntercomSource(kind="intercom", base_url=desk.url, access_token=token, **{**usual, **options})


def busy(desk: IntercomDesk) -> None:
    for number in range(1, 6):
        desk.add(number)


def test_conversations_get_their_first_words_and_their_last_public_answer(desk: IntercomDesk, tmp_path: Path) -> None:
    busy(desk)
    said = {"part_type": "comment", "created_at": 1_780_315_900, "author": AGENT}
    customer = {"type": "user", "id": "c102"}
    desk.parts[2] += [
        {**said, "id": "27", "part_type": "note", "body": "note"},
        {**said, "id": "28", "author": customer, "body": "Thanks!"},
        {**said, "id": "29", "body": "Bye."},
        {**said, "id": "30", "part_type": "close", "body": None},
    ]
    desk.add(6, state="open")
    desk.add(7)
    desk.conversations[7]["source"] = {"type": "conversation", "author": AGENT, "body": "We have news.", "subject": ""}
    desk.parts[7] = [
        {**said, "id": "71", "author": {"type": "user", "id": "c107"}, "body": "Which news?"},
        {**said, "id": "72", "created_at": 1_780_316_000, "body": "These."},
    ]
    found = tickets(table := sync(source(desk), tmp_path))
    assert {key: found["1"][key] for key in ("body", "reply", "category", "customer_id", "rating", "subject")} == {
        "body": "Question 1, please help.", "reply": "Answer 1.", "category": "billing", "customer_id": "c101",
        "rating": 1.0, "subject": "Subject 1",
    }  # fmt: skip
    assert (found["2"]["body"], found["2"]["reply"]) == ("Question 2, please help.", "Bye.")
    assert (found["7"]["body"], found["7"]["reply"]) == ("Which news?", "These.")
    assert removed(table) == {"6": "other_status"}
    assert not any(path.startswith("/conversations/6") for path in desk.asked)
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_dropped) == (7, 6, 1)


def test_a_workspace_that_misbehaves_gives_the_rows_of_one_that_does_not(desk: IntercomDesk, tmp_path: Path) -> None:
    busy(desk)
    desk.touch(2, 3, 4, 5)  # two pages of one moment
    sync(source(desk), tmp_path / "calm")
    n_calm = len(desk.asked)
    moods = ("429", "500", "half", "cut", "wrong")
    desk.plan = {n_calm + 2 + 2 * place: mood for place, mood in enumerate((*moods, *moods))}
    table = sync(source(desk), tmp_path / "wild")
    assert fingerprint(source(desk), tmp_path / "wild") == fingerprint(source(desk), tmp_path / "calm")
    assert len(tickets(table)) == 5


def test_parts_are_asked_for_once_for_each_version_and_what_is_redacted_takes_the_ticket(
    desk: IntercomDesk, tmp_path: Path
) -> None:
    busy(desk)
    spec = source(desk)
    sync(spec, tmp_path)
    n_asked = len(desk.asked)
    sync(spec, tmp_path)
    assert set(desk.asked[n_asked:]) == {"/conversations/search"}
    desk.parts[1][2]["body"] = "A better answer."
    desk.parts[2][2] |= {"redacted": True, "body": "<p>[redacted]</p>"}
    del desk.parts[3]  # deleted between the search and its parts
    desk.parts[4] = desk.parts[4][:2]  # the answer was deleted
    desk.touch(1, 2, 3, 4)
    table = sync(spec, tmp_path)
    assert tickets(table)["1"]["reply"] == "A better answer."
    assert removed(table) == {"2": "deleted_upstream", "3": "deleted_upstream", "4": "deleted_upstream"}
    folder = ingest_folder(spec, tmp_path / "landed")
    assert folder is not None
    held = b"".join(path.read_bytes() for path in folder.iterdir())
    assert not any(text in held for text in (b"Answer 1.", b"Answer 2.", b"Question 3", b"Answer 4."))


def test_what_is_no_conversation_is_quarantined_and_a_refused_login_holds_no_token(
    desk: IntercomDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(desk)
    whole = desk.search
    monkeypatch.setattr(
        desk, "search", lambda asked: {**(found := whole(asked)), "conversations": [*found["conversations"], "oops"]}
    )
    table = sync(source(desk, page_size=100), tmp_path)
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_quarantined) == (6, 5, 1)
    assert list(removed(table).values()) == ["TG0267"]
    monkeypatch.setenv(VARIABLE, "wrong-token-1")
    with pytest.raises(ServiceError, match=r"TG0707.*Intercom refuses the login") as raised:
        bring_in(source(desk), root=tmp_path, landed=tmp_path / "other")
    assert "wrong-token" not in str(raised.value)
