"""Zendesk on loopback: despite faults and kills, each ticket is stored once and deletions are final."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from schemas.remote_source import ZendeskSource
from tasks.sources.landing import FILE
from tasks.sources.registry import fingerprint_source
from tests.support.ingest_process import Ingests
from tests.support.synced import extract, removed, sync, tickets
from tests.support.zendesk_desk import ZendeskDesk
from tests.tasks.sources.test_zendesk import VARIABLE, busy, change, database, desk, gone_texts, source

PLACES = ("ingest.written", "ingest.fetched", "ingest.committed")


def kill_at_every_step(process: Ingests, spec: ZendeskSource, folder: Path, *, whole: str) -> int:
    """Kill before, during and after the commit of each page until everything is ingested; return the number of pages,
    including the final mark."""
    for n_pages in range(1, 20):
        ended = any(process.ingest(spec, folder, place) for place in PLACES)
        if fingerprint_source(spec, root=folder, landed=folder / "landed") == whole:
            assert ended
            return n_pages
    raise AssertionError("it does not go on")


@pytest.mark.parametrize(
    "places",
    [
        pytest.param(("ingest.finished", "ingest.rewritten"), id="in the end"),
        pytest.param((), id="at every step", marks=pytest.mark.campaign),
    ],
)
def test_after_kills_during_deletions_the_texts_are_removed_in_the_end(
    desk: ZendeskDesk, process: Ingests, tmp_path: Path, places: tuple[str, ...]
) -> None:
    busy(desk)
    spec = source(desk)
    sync(spec, tmp_path / "before")
    change(desk)
    shutil.copytree(tmp_path / "before", tmp_path / "whole")
    table = sync(spec, tmp_path / "whole")
    whole = fingerprint_source(spec, root=tmp_path, landed=tmp_path / "whole" / "landed")
    for name in places or ("steps",):
        folder = tmp_path / name
        shutil.copytree(tmp_path / "before", folder)
        if name == "steps":  # three pages, four tickets, and the final mark
            assert kill_at_every_step(process, spec, folder, whole=whole) == 8
        else:
            assert not process.ingest(spec, folder, name)
        assert process.ingest(spec, folder)
        assert gone_texts(database(spec, folder).parent) == []
        again = extract(spec, folder)
        assert (again.rows, tickets(again), removed(again)) == (table.rows, tickets(table), removed(table))


def test_dlt_writes_no_file_starts_no_thread_and_sends_no_telemetry(
    desk: ZendeskDesk, tmp_path: Path, project: Path
) -> None:
    busy(desk)
    code = (
        "import sys, socket, threading; from pathlib import Path\n"
        "reached = set(); real = socket.socket.connect\n"
        "def connect(self, address): reached.add(address[0]); return real(self, address)\n"
        "socket.socket.connect = connect\n"
        "from pydantic import TypeAdapter; from schemas.source import SourceSpec\n"
        "from tasks.sources.registry import ingest_source\n"
        "ingest_source(TypeAdapter(SourceSpec).validate_json(sys.argv[1]), root=Path('.'), landed=Path('landed'))\n"
        "print(sorted(reached), [each.name for each in threading.enumerate()], 'dlt.pipeline.trace' in sys.modules)"
    )
    home = tmp_path / "home"
    (tmp_path / "work").mkdir()
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, source(desk).model_dump_json()], capture_output=True, text=True, check=True,
        cwd=tmp_path / "work", env={**os.environ, "HOME": str(home), "PYTHONPATH": str(project)},
    )  # fmt: skip
    assert done.stdout.startswith("['127.0.0.1'] ['MainThread']")
    assert done.stderr == ""
    assert list(home.iterdir()) == []
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["landed"]
    assert Counter(path.name for path in (tmp_path / "work" / "landed").rglob("*") if path.is_file()) == {FILE: 1}


def test_after_kills_at_every_step_no_row_is_lost_doubled_or_fetched_again(
    desk: ZendeskDesk, process: Ingests, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        desk.add(number)
    spec = source(desk)
    table = sync(spec, tmp_path / "whole")
    whole = fingerprint_source(spec, root=tmp_path, landed=tmp_path / "whole" / "landed")
    desk.answered.clear()
    # Two pages of the export, the comments of three tickets, and the final mark.
    assert kill_at_every_step(process, spec, tmp_path / "killed", whole=whole) == 6
    with_rows = {path: n for path, n in desk.answered.items() if "c1780272003" not in path}
    # Killed before the write and before the commit, then complete: never fetched again.
    assert set(with_rows.values()) == {3}
    assert process.ingest(spec, tmp_path / "killed")
    again = extract(spec, tmp_path / "killed")
    assert (again.rows, tickets(again)) == (table.rows, tickets(table))
