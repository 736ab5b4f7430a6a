"""Zendesk on loopback: whatever it does and whenever we are killed, tickets are there once, and what goes is gone."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ConfigError, DataError, ServiceError
from schemas.remote_source import ZendeskSource
from tasks.curate.rows import read_rows
from tasks.sources import zendesk, zendesk_api
from tasks.sources.landing import FILE
from tasks.sources.registry import fingerprint_source, ingest_source
from tests.support.ingest_process import DELAY_S
from tests.support.synced import extract, folder_of, removed, sync, tickets
from tests.support.zendesk_desk import AGENT, TOKEN, ZendeskDesk, zendesk_desk

pytestmark = pytest.mark.needs_extra("zendesk")

VARIABLE = "DESK_TOKEN"


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[ZendeskDesk]:
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.setattr(zendesk_api, "FIRST_DELAY_S", DELAY_S)
    with zendesk_desk() as desk:
        yield desk


def source(desk: ZendeskDesk, **options: Any) -> ZendeskSource:
    return ZendeskSource(
        kind="zendesk", base_url=desk.url, email="ada@example.com", api_token=f"${{env:{VARIABLE}}}",
        start="2026-06-01", columns={"category": "fields.360001"},
        **{"page_size": 2, "requests_per_minute": 700, **options},
    )  # fmt: skip


def database(spec: ZendeskSource, folder: Path) -> Path:
    return folder_of(spec, folder) / FILE


def busy(desk: ZendeskDesk) -> None:
    """Five tickets: three pages of the export, two pages of comments each."""
    for number in range(1, 6):
        desk.add(number)


def change(desk: ZendeskDesk) -> None:
    """One ticket is deleted, one comment redacted, one comment taken away, one text edited, one ticket is new."""
    desk.touch(1, status="deleted", subject="SCRUBBED")
    del desk.comments[1]
    desk.comments[2][0]["plain_body"] = "My number is \N{LOWER SEVEN EIGHTHS BLOCK}"
    desk.touch(2)
    del desk.comments[3][2]
    desk.touch(3)
    desk.comments[4][2]["plain_body"] = "A better answer."
    desk.touch(4)
    desk.add(6)


def test_tickets_get_their_first_question_and_their_last_public_answer(desk: ZendeskDesk, tmp_path: Path) -> None:
    busy(desk)
    desk.comments[2] += [
        {"id": 27, "author_id": AGENT, "public": False, "plain_body": "note", "created_at": "2026-06-03T11:00:00Z"},
        {"id": 28, "author_id": 102, "public": True, "plain_body": "Thanks!", "created_at": "2026-06-03T11:01:00Z"},
        {"id": 29, "author_id": AGENT, "public": True, "plain_body": "Bye.", "created_at": "2026-06-03T11:02:00Z"},
    ]
    desk.add(7, status="open")
    found = tickets(table := sync(source(desk), tmp_path))
    assert {key: found["1"][key] for key in ("body", "reply", "category", "customer_id", "rating", "channel")} == {
        "body": "Question 1, please help.", "reply": "Answer 1 of the desk.", "category": "billing",
        "customer_id": "101", "rating": 1.0, "channel": "email",
    }  # fmt: skip
    assert (found["2"]["body"], found["2"]["reply"]) == ("Question 2, please help.", "Bye.")
    assert removed(table) == {"7": "other_status"}
    assert not any("tickets/7/" in path for path in desk.requests)
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_dropped) == (6, 5, 1)
    for reply, text in (("first", "Answer 2 of the desk."), ("longest", "Answer 2 of the desk.")):
        assert tickets(extract(source(desk, reply=reply), tmp_path))["2"]["reply"] == text


def test_an_account_that_misbehaves_gives_the_rows_of_one_that_does_not(desk: ZendeskDesk, tmp_path: Path) -> None:
    busy(desk)
    sync(source(desk), tmp_path / "calm")
    n_calm = len(desk.requests)
    calm = fingerprint_source(source(desk), root=tmp_path, landed=tmp_path / "calm" / "landed")
    moods = ("429", "500", "half", "cut", "again", "wrong")
    desk.plan = {n_calm + 2 + 2 * place: mood for place, mood in enumerate((*moods, "429", "500", "half", "cut"))}
    table = sync(source(desk), tmp_path / "wild")
    assert fingerprint_source(source(desk), root=tmp_path, landed=tmp_path / "wild" / "landed") == calm
    assert len(tickets(table)) == 5
    assert len(desk.requests) - n_calm >= n_calm + 9  # all failures occurred


def test_a_page_that_was_seen_changes_nothing_and_a_cursor_that_stands_still_ends(
    desk: ZendeskDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(desk)
    sync(source(desk), tmp_path)
    n_requests = len(desk.requests)
    sync(source(desk), tmp_path)
    assert [path.partition("?")[0] for path in desk.requests[n_requests:]] == [
        "/api/v2/incremental/tickets/cursor.json"
    ]
    whole = desk.export
    desk.export = lambda query: {**whole(query), "after_cursor": query.get("cursor", "c0"), "end_of_stream": False}  # type: ignore[method-assign]
    desk.add(6)
    with pytest.raises(ServiceError, match=r"TG0708.*a page twice"):
        ingest_source(source(desk), root=tmp_path, landed=tmp_path / "landed")


GONE = ("Question 1", "Question 2", "Answer 1", "Answer 3", "Answer 4")


def gone_texts(folder: Path) -> list[str]:
    held = b"".join(path.read_bytes() for path in folder.iterdir())
    return [text for text in GONE if text.encode() in held]


def test_what_is_deleted_or_redacted_upstream_is_dropped_with_the_ticket(desk: ZendeskDesk, tmp_path: Path) -> None:
    busy(desk)
    sync(source(desk), tmp_path)
    change(desk)
    table = sync(source(desk), tmp_path)
    assert removed(table) == {"1": "deleted_upstream", "2": "deleted_upstream", "3": "deleted_upstream"}
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_dropped) == (6, 3, 3)
    assert tickets(table)["4"]["reply"] == "A better answer."


def test_no_byte_of_a_deleted_redacted_or_edited_text_stays(desk: ZendeskDesk, tmp_path: Path) -> None:
    busy(desk)
    spec = source(desk)
    sync(spec, tmp_path)
    folder = database(spec, tmp_path).parent
    assert gone_texts(folder) == list(GONE)
    change(desk)
    sync(spec, tmp_path)
    assert gone_texts(folder) == []
    assert (folder / FILE).stat().st_mode & 0o077 == 0


def test_a_restored_ticket_is_there_again_and_one_without_comments_any_more_is_gone(
    desk: ZendeskDesk, tmp_path: Path
) -> None:
    busy(desk)
    comments = desk.comments[1]
    desk.touch(1, status="deleted")
    del desk.comments[2]  # between the page of the export and the one of its comments
    table = sync(source(desk), tmp_path)
    assert removed(table) == {"1": "deleted_upstream", "2": "deleted_upstream"}
    desk.comments[1] = comments
    desk.touch(1, status="solved")
    assert set(tickets(sync(source(desk), tmp_path))) == {"1", "3", "4", "5"}


def test_what_is_no_ticket_is_quarantined_and_counted(desk: ZendeskDesk, tmp_path: Path) -> None:
    busy(desk)
    whole = desk.export
    desk.export = lambda query: {**(page := whole(query)), "tickets": [*page["tickets"], "oops"][:9]}  # type: ignore[method-assign]
    table = sync(source(desk, page_size=1000), tmp_path)
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_quarantined) == (6, 5, 1)
    assert list(removed(table).values()) == ["TG0246"]


def test_a_refused_login_says_so_and_holds_no_token(
    desk: ZendeskDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "wrong-token-1")
    with pytest.raises(ServiceError, match=r"TG0707.*refuses the login") as raised:
        ingest_source(source(desk), root=tmp_path, landed=tmp_path / "landed")
    assert "wrong-token" not in str(raised.value)
    assert desk.refused_logins == 1
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match=f"TG0106.*{VARIABLE}"):
        ingest_source(source(desk), root=tmp_path, landed=tmp_path / "landed")


def test_a_login_page_is_named_as_such(desk: ZendeskDesk, tmp_path: Path) -> None:
    busy(desk)
    desk.plan = dict.fromkeys(range(1, 500), "login")
    with pytest.raises(ServiceError, match=r"TG0708.*a page of HTML, perhaps a login page"):
        ingest_source(source(desk), root=tmp_path, landed=tmp_path / "landed")


def test_an_account_that_never_answers_keeps_what_came(
    desk: ZendeskDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(desk)
    desk.plan = dict.fromkeys(range(3, 500), "500")
    monkeypatch.setattr(zendesk_api, "ATTEMPTS", 2)
    with pytest.raises(ServiceError, match=r"TG0708.*status 500"):
        ingest_source(source(desk), root=tmp_path, landed=tmp_path / "landed")
    with pytest.raises(DataError, match=r"TG0270"):
        extract(source(desk), tmp_path)
    desk.plan = {}
    n_requests = len(desk.requests)
    assert len(tickets(sync(source(desk), tmp_path))) == 5
    assert "cursor=c" in desk.requests[n_requests]  # not from the start


def test_retry_after_is_waited_for_and_pages_keep_to_the_limit_of_a_minute(desk: ZendeskDesk) -> None:
    busy(desk)
    waited: list[float] = []
    api = zendesk_api.ZendeskApi(source(desk, requests_per_minute=2), sleep=waited.append)
    with closing(api):
        assert [len(page["tickets"]) for page in api.tickets(None)] == [2, 2, 1]
    assert waited
    assert 50 < waited[0] <= 60


def test_without_dlt_the_extra_is_named(desk: ZendeskDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"TG0112.*\n.*\n\nhint: make install"):
        ingest_source(source(desk), root=tmp_path, landed=tmp_path / "landed")


def test_a_ticket_that_raises_stops_no_sync_and_is_quarantined_until_it_can_be_used(
    desk: ZendeskDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own fields, its comments, and the two put together."""
    busy(desk)

    def plant(patch: pytest.MonkeyPatch, module: Any, function: str, is_bad: Any) -> None:
        real = getattr(module, function)

        def raising(*given: Any, **named: Any) -> Any:
            if is_bad(*given):
                raise KeyError("my secret text")
            return real(*given, **named)

        patch.setattr(module, function, raising)

    with monkeypatch.context() as patch:
        plant(patch, zendesk, "_ticket", lambda value, _: value["id"] == 1)
        plant(patch, zendesk, "_comments", lambda ticket, _: ticket == "2")
        plant(patch, zendesk, "ticket_row", lambda ticket, _: ticket["id"] == 3)
        table = sync(source(desk), tmp_path)
    rows = read_rows(table.removed).to_pylist()
    assert sorted((row["ticket_id"], row["code"], row["reason"]) for row in rows if row["ticket_id"]) == [
        ("2", "TG0246", "KeyError in step ingest."),
        ("3", "TG0218", "KeyError in step extract."),
    ]
    assert [row["reason"] for row in rows if row["ticket_id"] is None] == ["KeyError in step ingest."]
    assert sorted(tickets(table)) == ["4", "5"]
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_quarantined) == (5, 2, 3)

    desk.touch(1)
    again = sync(source(desk), tmp_path)
    assert sorted(tickets(again)) == ["1", "2", "3", "4", "5"]
