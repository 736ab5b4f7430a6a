"""A source that was brought in loses a forgotten customer's rows and bytes, and takes in none that come later."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from flows.ingest import landed_folder
from flows.privacy.forget import apply_tombstones, forget, plan_forgetting
from schemas.errors import LockedError
from schemas.remote_source import PostgresSource, ZendeskSource
from tasks.curate.ingest.bring import ingest_folder
from tasks.curate.ingest.landing import FILE, Row, open_landing
from tasks.curate.ingest.whose import note_whose, whose_of
from tests.support.forgetful_workspace import KEY, Workspace, build
from tests.support.traces import traces

ZENDESK = ZendeskSource(
    kind="zendesk", subdomain="acme", email="a@b.example", api_token="${env:NONE}", start="2026-06-01"
)
WORDS = ("4711", "amber ibis")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("VQ_KEY", KEY)
    return build(tmp_path)


def ticket(number: int, requester: int, text: str, *, version: str = "1") -> list[Row]:
    content = {"id": number, "requester_id": requester, "subject": text}
    said = [(requester, "end-user"), (900, "agent"), (4711, "end-user")]
    return [
        Row("ticket", str(number), json.dumps(content), status="solved", version=version, fetched=version),
        *(
            Row(
                "comment", str(number * 10 + place), parent=str(number),
                content=json.dumps({"author_id": author, "role": role, "public": True, "created_at": str(place),
                                    "body": "amber ibis" if author == 4711 else text}),
            )
            for place, (author, role) in enumerate(said)
        ),
    ]  # fmt: skip


def row(owner: int, number: int, text: str | None) -> Row:
    content = text and json.dumps({"owner": owner, "id": number, "body": text, "reply": "r"})
    return Row("row", json.dumps([str(owner), str(number)]), content, state="live" if text else "deleted")


def fill(here: Workspace, source: ZendeskSource | PostgresSource) -> Path:
    folder = ingest_folder(source, landed_folder(here.settings, "small"))
    assert folder is not None
    if isinstance(source, ZendeskSource):
        rows = [*ticket(1, 4711, "amber ibis"), *ticket(2, 4711, "amber ibis"), *ticket(3, 8, "grey")]
    else:
        rows = [row(4711, 1, "amber ibis"), row(4711, 2, None), row(8, 3, "grey")]
    with open_landing(folder) as landing:
        note_whose(landing, whose_of(source))
        with landing.step():
            landing.put(rows)
        landing.finish(at="2026-06-02")
    return folder / FILE


def left(here: Workspace) -> list[str]:
    return traces(here.settings.home / "ingest", WORDS)


def test_a_file_that_a_backup_brought_back_is_cleared_and_one_that_is_held_is_not_certified(here: Workspace) -> None:
    file = fill(here, ZENDESK)
    before = file.read_bytes()
    forget(here.settings, here.specs, "4711", reason="case 17", actor="a person", unknown=False)
    file.write_bytes(before)
    assert left(here)
    assert len(apply_tombstones(here.settings)) == 1
    assert left(here) == []
    file.write_bytes(before)
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # another process brings the source in
        with open_landing(file.parent):
            os.write(ready[1], b".")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        with pytest.raises(LockedError, match="TG0551"):
            plan_forgetting(here.settings, here.specs, "4711")
        assert apply_tombstones(here.settings) == (), "its own run leaves them out"
    finally:
        os.write(done[1], b".")
        os.waitpid(child, 0)
    assert len(apply_tombstones(here.settings)) == 1
