"""Freshdesk on loopback: whatever it does and whenever we are killed, tickets are there once, and what goes is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.curate.ingest import rest_pages
from tests.support.freshdesk_desk import KEY, FreshdeskDesk, freshdesk_desk
from tests.support.ingest_process import DELAY_S, Ingests, ingests
from tests.support.synced import extract, fingerprint, removed, sync, tickets
from tests.tasks.curate.ingest.test_freshdesk import VARIABLE, desk, source


@pytest.fixture(scope="module")
def process(project: Path) -> Iterator[Ingests]:
    with ingests(project) as started:
        yield started


PLACES = ("ingest.written", "ingest.fetched", "ingest.committed")


def test_killed_at_every_step_no_row_is_lost_or_doubled(desk: FreshdeskDesk, process: Ingests, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        desk.add(number)
    desk.add(4)
    desk.listed[4] = "deleted"
    spec = source(desk)
    table = sync(spec, tmp_path / "whole")
    whole = fingerprint(spec, tmp_path / "whole")
    # Before a page is committed, before it is written and after it is committed; then the same with the next page.
    for number in range(1, 20):
        if all(process.bring_in(spec, tmp_path / "killed", f"{place}:{number}") for place in PLACES):
            break
    assert 3 < number < 19
    assert fingerprint(spec, tmp_path / "killed") == whole
    again = extract(spec, tmp_path / "killed")
    assert (again.rows, tickets(again), removed(again)) == (table.rows, tickets(table), removed(table))
    assert removed(again) == {"4": "deleted_upstream"}
