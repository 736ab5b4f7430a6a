"""Intercom on loopback: whatever it does and whenever we are killed, conversations are there once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.remote_source import IntercomSource
from tasks.curate.ingest import rest_pages
from tests.support.ingest_process import DELAY_S, Ingests, ingests
from tests.support.intercom_desk import TOKEN, IntercomDesk, intercom_desk
from tests.support.synced import extract, fingerprint, sync, tickets

VARIABLE = "DESK_TOKEN"


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[IntercomDesk]:
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.setattr(rest_pages, "FIRST_DELAY_S", DELAY_S)
    with intercom_desk() as desk:
        yield desk


@pytest.fixture(scope="module")
def process(project: Path) -> Iterator[Ingests]:
    with ingests(project) as started:
        yield started


def source(desk: IntercomDesk, **options: Any) -> IntercomSource:
    usual = {"start": "2026-06-01", "columns": {"category": "fields.area"}, "page_size": 2, "requests_per_minute": 5000}
    token = f"${{env:{VARIABLE}}}"
    return IntercomSource(kind="intercom", base_url=desk.url, access_token=token, **{**usual, **options})


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
