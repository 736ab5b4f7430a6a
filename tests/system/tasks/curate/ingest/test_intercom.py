"""Intercom on loopback: whatever it does and whenever we are killed, conversations are there once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.curate.ingest import rest_pages
from tests.support.ingest_process import DELAY_S, Ingests, ingests
from tests.support.intercom_desk import TOKEN, IntercomDesk, intercom_desk
from tests.support.synced import extract, fingerprint, sync, tickets
from tests.tasks.curate.ingest.test_intercom import VARIABLE, desk, source


@pytest.fixture(scope="module")
def process(project: Path) -> Iterator[Ingests]:
    with ingests(project) as started:
        yield started


PLACES = ("ingest.written", "ingest.fetched", "ingest.committed")


def test_killed_at_every_step_no_row_is_lost_or_doubled(desk: IntercomDesk, process: Ingests, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        desk.add(number)
    spec = source(desk)
    table = sync(spec, tmp_path / "whole")
    whole = fingerprint(spec, tmp_path / "whole")
    for number in range(1, 20):
        if all(process.bring_in(spec, tmp_path / "killed", f"{place}:{number}") for place in PLACES):
            break
    assert 2 < number < 19
    assert fingerprint(spec, tmp_path / "killed") == whole
    again = extract(spec, tmp_path / "killed")
    assert (again.rows, tickets(again)) == (table.rows, tickets(table))
