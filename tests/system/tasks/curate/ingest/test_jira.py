"""Jira on loopback: whatever it does and whenever we are killed, requests are there once, and no internal word is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import ServiceError
from tasks.curate.ingest import rest_pages
from tasks.curate.ingest.bring import bring_in
from tests.support.ingest_process import DELAY_S, Ingests, ingests
from tests.support.jira_desk import TOKEN, JiraDesk, jira_desk
from tests.support.synced import extract, fingerprint, removed, sync, tickets
from tests.tasks.curate.ingest.test_jira import VARIABLE, busy, desk, source


@pytest.fixture(scope="module")
def process(project: Path) -> Iterator[Ingests]:
    with ingests(project) as started:
        yield started


PLACES = ("ingest.written", "ingest.fetched", "ingest.committed")


def test_killed_at_every_step_no_row_is_lost_or_doubled(desk: JiraDesk, process: Ingests, tmp_path: Path) -> None:
    busy(desk, 4)
    spec = source(desk, page_size=1)
    for each in ("whole", "killed"):
        sync(spec, tmp_path / each)
    desk.drop(4)
    desk.hidden = {5}  # the search does not show it; the list of ids does
    desk.add(5)
    desk.touch(1, 2)
    table = sync(spec, tmp_path / "whole")
    whole = fingerprint(spec, tmp_path / "whole")
    for number in range(1, 20):
        if all(process.bring_in(spec, tmp_path / "killed", f"{place}:{number}") for place in PLACES):
            break
    assert 3 < number < 19
    assert fingerprint(spec, tmp_path / "killed") == whole
    again = extract(spec, tmp_path / "killed")
    assert (again.rows, tickets(again), removed(again)) == (table.rows, tickets(table), removed(table))
    assert (set(tickets(again)), removed(again)) == ({"1", "2", "3", "5"}, {"4": "deleted_upstream"})


def test_killed_at_the_first_sync_it_goes_on_with_the_next_page_also_when_its_token_has_ended(
    desk: JiraDesk, process: Ingests, tmp_path: Path
) -> None:
    busy(desk, 6)
    spec = source(desk)
    assert not process.bring_in(spec, tmp_path, "ingest.committed:2")
    desk.answered.clear()
    n_asked = len(desk.asked)
    desk.tokens_end = True
    with pytest.raises(ServiceError, match="TG0708"):  # and it always will
        bring_in(spec, root=tmp_path, landed=tmp_path / "landed")
    desk.tokens_end = False
    table = sync(spec, tmp_path)
    assert len(tickets(table)) == 6
    assert sum(path.endswith("search/jql") for path in desk.asked[n_asked:]) > 3

    other = tmp_path / "other"
    assert not process.bring_in(spec, other, "ingest.committed:2")
    n_asked = len(desk.asked)
    assert len(tickets(sync(spec, other))) == 6
    assert sum(path.endswith("search/jql") for path in desk.asked[n_asked:]) == 2  # the third page, and the ids
