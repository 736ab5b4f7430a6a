"""Jira on loopback: whatever it does and whenever we are killed, requests are there once, and no internal word is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ConfigError, ServiceError
from schemas.remote_source import JiraSource
from tasks.curate.ingest import rest_pages
from tasks.curate.ingest.bring import bring_in, ingest_folder
from tasks.curate.ingest.landing import FILE
from tasks.curate.ingest.whose import landed_customers, remove_landed
from tasks.forget.hashes import Forgotten, KeyedHash
from tests.support.ingest_process import DELAY_S
from tests.support.jira_desk import AGENT, EMAIL, ROBOT, TOKEN, JiraDesk, customer, doc, jira_desk
from tests.support.synced import extract, fingerprint, removed, sync, tickets

VARIABLE = "DESK_TOKEN"


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[JiraDesk]:
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.setattr(rest_pages, "FIRST_DELAY_S", DELAY_S)
    with jira_desk() as desk:
        yield desk


def source(desk: JiraDesk, **options: Any) -> JiraSource:
    usual = {
        "start": "2026-06-01", "columns": {"category": "fields.customfield_10050"}, "page_size": 2,
        "requests_per_minute": 9000, "projects": ("SUP",), "email": EMAIL, "api_token": f"${{env:{VARIABLE}}}",
    }  # fmt: skip
    return JiraSource(kind="jira", base_url=desk.url, **{**usual, **options})


def busy(desk: JiraDesk, last: int = 5) -> None:
    for number in range(1, last + 1):
        desk.add(number)


def held(spec: JiraSource, folder: Path) -> bytes:
    found = ingest_folder(spec, folder / "landed")
    assert found is not None
    return b"".join(path.read_bytes() for path in found.iterdir())


def comments_asked(desk: JiraDesk, since: int = 0) -> set[str]:
    return {path.split("/")[5] for path in desk.asked[since:] if "/api/3/issue/" in path and "/comment" in path}


def test_requests_hold_their_question_and_get_their_last_public_answer(desk: JiraDesk, tmp_path: Path) -> None:
    busy(desk)
    desk.say(2, "Internal again", public=False)
    desk.say(2, "Thanks!", author=customer(102))
    desk.say(2, "Bye.")
    desk.say(2, "Closed for want of an answer.", author=ROBOT)
    desk.say(2, "Only for developers", visibility={"type": "role", "value": "Developers"})
    desk.add(6, status={"name": "Waiting", "statusCategory": {"key": "indeterminate"}})
    desk.add(7, creator=AGENT)  # an agent began it: the customer's first words are in the comments
    desk.comments[7] = []
    desk.say(7, "Why do you write?", author=customer(107))
    desk.say(7, "Because.")
    desk.add(8, reporter=None, creator=ROBOT, issuetype={"name": "Task"})
    desk.issues[8]["customfield_10010"] = None
    desk.add(9, reporter={"accountId": "unknown"}, creator={"accountId": "unknown"})
    found = tickets(table := sync(source(desk), tmp_path))
    names = ("body", "reply", "category", "customer_id", "priority", "rating", "subject", "created_at")
    assert {name: str(found["1"][name]) for name in names} == {
        "body": "Question 1, please help.", "reply": "Answer 1 of the desk.", "category": "billing",
        "customer_id": "qm:c-101", "priority": "High", "rating": "1.0", "subject": "Subject 1",
        "created_at": "2026-06-01 11:00:00",
    }  # fmt: skip
    assert (found["2"]["body"], found["2"]["reply"]) == ("Question 2, please help.", "Bye.")
    assert (found["7"]["body"], found["7"]["reply"]) == ("Why do you write?", "Because.")
    assert (found["8"]["customer_id"], found["9"]["customer_id"]) == (None, None)
    assert found["9"]["reply"] == "Answer 9 of the desk."
    assert removed(table) == {"6": "other_status"}
    assert "6" not in comments_asked(desk)
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_dropped) == (9, 8, 1)
    named = source(desk, columns={"category": "type", "product": "fields.key", "channel": "fields.resolution"})
    n_asked = len(desk.asked)
    again = tickets(extract(named, tmp_path))
    assert [again["1"][name] for name in ("category", "product", "channel")] == ["Billing question", "SUP-1", "Fixed"]
    assert again["8"]["category"] == "Task"
    assert len(desk.asked) == n_asked


@pytest.mark.parametrize("lies", [False, True])
def test_internal_words_are_nowhere_even_where_one_of_two_lists_calls_them_public(
    desk: JiraDesk, tmp_path: Path, lies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(desk)
    if lies:  # the platform says nothing of who sees a comment
        for said in desk.comments.values():
            for each in said:
                each["seen"] = each.pop("jsdPublic")
        shown = desk._seen_by_customers

        def told(number: int, query: dict[str, str]) -> dict[str, Any]:
            for each in desk.comments[number]:
                each["jsdPublic"] = each["seen"]
            page = shown(number, query)
            for each in desk.comments[number]:
                del each["jsdPublic"]
            return page

        monkeypatch.setattr(desk, "_seen_by_customers", told)
    spec = source(desk)
    assert tickets(sync(spec, tmp_path))["3"]["reply"] == "Answer 3 of the desk."
    assert b"Answer 3" in held(spec, tmp_path)
    assert b"Note" not in held(spec, tmp_path)
    assert b"Ada Agent" not in held(spec, tmp_path)
    assert not any("servicedeskapi" in path and "internal=false" not in path for path in desk.asked)


def test_an_issue_that_is_no_request_has_no_public_answer(desk: JiraDesk, tmp_path: Path) -> None:
    busy(desk, 2)
    desk.no_request = {2}
    found = tickets(sync(source(desk), tmp_path))
    assert (found["1"]["reply"], found["2"]["reply"]) == ("Answer 1 of the desk.", None)


def test_more_than_a_page_of_comments_is_read(desk: JiraDesk, tmp_path: Path) -> None:
    desk.add(1)
    for number in range(250):
        desk.say(1, f"Word {number}", public=number % 2 == 0)
    assert tickets(sync(source(desk), tmp_path))["1"]["reply"] == "Word 248"


@pytest.mark.parametrize("zone", [-12.0, 5.75, 14.0])
def test_no_change_is_missed_in_any_time_zone_of_the_account(desk: JiraDesk, tmp_path: Path, zone: float) -> None:
    desk.zone_hours = zone
    busy(desk)
    desk.issues[5]["updated"] = "2026-05-31T16:59:59.999-0700"  # a millisecond before the source begins
    desk.issues[4]["updated"] = "2026-05-31T17:00:00.000-0700"
    spec = source(desk)
    assert set(tickets(sync(spec, tmp_path))) == {"1", "2", "3", "4"}
    desk.comments[1][1]["body"] = doc("A better answer.")
    desk.touch(1)
    desk.add(6)
    n_asked = len(desk.asked)
    found = tickets(sync(spec, tmp_path))
    assert set(found) == {"1", "2", "3", "4", "6"}
    assert found["1"]["reply"] == "A better answer."
    assert comments_asked(desk, n_asked) == {"1", "6"}


def test_a_site_that_misbehaves_gives_the_rows_of_one_that_does_not(desk: JiraDesk, tmp_path: Path) -> None:
    busy(desk)
    desk.touch(2, 3, 4, 5)  # two pages of one moment
    sync(source(desk), tmp_path / "calm")
    n_calm = len(desk.asked)
    moods = ("429", "500", "half", "cut", "wrong", "login", "again")
    desk.plan = {n_calm + 2 + 2 * place: mood for place, mood in enumerate((*moods, *moods))}
    table = sync(source(desk), tmp_path / "wild")
    assert fingerprint(source(desk), tmp_path / "wild") == fingerprint(source(desk), tmp_path / "calm")
    assert len(tickets(table)) == 5
    assert len(desk.asked) - n_calm >= n_calm + 14  # the moods were met


def test_a_token_that_always_comes_again_and_a_page_of_html_are_told(
    desk: JiraDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(desk)
    whole = desk.search
    monkeypatch.setattr(desk, "search", lambda asked, _: whole(asked, "again"))
    with pytest.raises(ServiceError, match=r"TG0708.*a token of a page that was there already"):
        bring_in(source(desk), root=tmp_path, landed=tmp_path / "landed")
    assert len(desk.asked) < 60
    monkeypatch.setattr(desk, "search", lambda asked, _: {**(whole(asked, None) or {}), "nextPageToken": None})
    with pytest.raises(ServiceError, match=r"TG0708.*not the last, without a token"):
        bring_in(source(desk), root=tmp_path, landed=tmp_path / "landed")
    desk.plan = dict.fromkeys(range(1000), "login")
    with pytest.raises(ServiceError, match=r"TG0708.*a page of HTML, perhaps to log in"):
        bring_in(source(desk), root=tmp_path, landed=tmp_path / "landed")


def test_comments_are_asked_for_once_for_each_version(desk: JiraDesk, tmp_path: Path) -> None:
    busy(desk)
    spec = source(desk)
    sync(spec, tmp_path)
    n_asked = len(desk.asked)
    sync(spec, tmp_path)
    assert not comments_asked(desk, n_asked)
    desk.comments[2][1]["body"] = doc("A better answer.")
    del desk.comments[3][1]
    desk.touch(2, 3)
    n_asked = len(desk.asked)
    table = sync(spec, tmp_path)
    assert tickets(table)["2"]["reply"] == "A better answer."
    assert removed(table) == {"3": "deleted_upstream"}
    assert comments_asked(desk, n_asked) == {"2", "3"}
    assert b"Answer 2 of" not in held(spec, tmp_path)


def test_a_request_that_changes_while_pages_are_read_is_there_and_hides_no_other(
    desk: JiraDesk, tmp_path: Path
) -> None:
    busy(desk, 9)
    searches: list[str] = []

    def meanwhile(path: str) -> None:
        if path.endswith("search/jql"):
            searches.append(path)
            if len(searches) in (2, 3, 4):
                desk.touch(len(searches), summary="Changed")

    desk.meanwhile = meanwhile
    assert set(tickets(sync(source(desk), tmp_path))) == {str(number) for number in range(1, 10)}


def test_what_is_gone_or_elsewhere_goes_and_comes_back(desk: JiraDesk, tmp_path: Path) -> None:
    busy(desk)
    spec = source(desk)
    sync(spec, tmp_path)
    desk.drop(1)
    desk.issues[2]["project"] = {"key": "HR"}  # moved, or no longer ours to see
    kept = desk.issues[3], desk.comments[3]
    desk.drop(3)
    ignoring = source(desk, deletions="ignore")
    assert removed(sync(ignoring, tmp_path)) == {}
    table = sync(spec, tmp_path)
    assert removed(table) == {"1": "deleted_upstream", "2": "deleted_upstream", "3": "deleted_upstream"}
    assert not any(text in held(spec, tmp_path) for text in (b"Question 1", b"Answer 2", b"Question 3"))
    desk.issues[3], desk.comments[3] = kept  # as it was: no search for changes shows it
    assert set(tickets(sync(spec, tmp_path))) == {"3", "4", "5"}
    both = source(desk, projects=("SUP", "HR"))
    assert ingest_folder(both, tmp_path) != ingest_folder(spec, tmp_path)
    assert ingest_folder(both, tmp_path) == ingest_folder(source(desk, projects=("HR", "SUP")), tmp_path)
    assert set(tickets(sync(both, tmp_path))) == {"2", "3", "4", "5"}


def test_what_is_no_issue_is_quarantined_once(desk: JiraDesk, tmp_path: Path) -> None:
    busy(desk)
    desk.extra = ["oops", {"id": "77", "fields": {"updated": "yesterday"}}]
    spec = source(desk, page_size=100)
    sync(spec, tmp_path)
    desk.touch(1)
    table = sync(spec, tmp_path)
    assert (table.rows.n_in, table.rows.n_out, table.rows.n_quarantined) == (7, 5, 2)
    assert set(removed(table).values()) == {"TG0267"}


def test_who_is_not_let_in_is_told_and_loses_nothing(
    desk: JiraDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(desk)
    spec = source(desk)
    sync(spec, tmp_path)
    monkeypatch.setenv(VARIABLE, "wrong-token-1")  # the search would show an empty site
    with pytest.raises(ServiceError, match=r"TG0707.*Jira refuses the login") as raised:
        sync(spec, tmp_path)
    assert "wrong-token" not in str(raised.value)
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert len(tickets(sync(spec, tmp_path))) == 5
    with pytest.raises(ServiceError, match=r"TG0707.*no project NONE") as raised:
        sync(source(desk, projects=("SUP", "NONE")), tmp_path)
    assert raised.value.where == "source.projects"
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match=f"TG0114.*{VARIABLE}"):
        sync(spec, tmp_path)


def test_a_forgotten_customer_leaves_no_byte_and_comes_in_no_more(desk: JiraDesk, tmp_path: Path) -> None:
    busy(desk, 3)
    desk.say(3, "Me too: amber ibis", author=customer(102))  # on the request of another
    spec = source(desk)
    sync(spec, tmp_path)
    folder = ingest_folder(spec, tmp_path / "landed")
    assert folder is not None
    assert landed_customers(folder / FILE) == [("qm:c-101", 1), ("qm:c-102", 2), ("qm:c-103", 1)]
    hashes = KeyedHash(b"k" * 16)
    forgotten = Forgotten(hashes, owners=[hashes.of("customer", "qm:c-102")])
    remove_landed(folder / FILE, forgotten)
    assert set(tickets(extract(spec, tmp_path))) == {"1", "3"}
    desk.touch(2, 3)
    bring_in(spec, root=tmp_path, landed=tmp_path / "landed", forgotten=forgotten)
    assert set(tickets(extract(spec, tmp_path))) == {"1", "3"}
    assert not any(text in held(spec, tmp_path) for text in (b"Question 2", b"amber ibis", b"c-102"))
