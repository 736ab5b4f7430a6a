"""Copies of remote files lose forgotten customers although the remote file still contains them."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.context.ingest import ingested_source, landed_folder
from flows.context.listener import Listeners
from flows.context.request import ANY_CASE
from flows.privacy.forget import apply_tombstones, forget, plan_forgetting
from flows.privacy.keys import load_forgotten
from schemas.remote_source import RemoteFilesSource
from tasks.curate.extract import extract_tickets
from tasks.sources.registry import fingerprint_source, ingest_source, place_of
from tests.flows.privacy.test_forget_landed import WORDS, traces_left
from tests.support.file_server import FileServer, file_server
from tests.support.forgetful_workspace import Workspace
from tests.support.traces import traces


def lines(*rows: tuple[str, str]) -> str:
    return "".join(
        json.dumps({"owner": {"id": owner}, "body": text, "reply": "r", "ticket_id": f"{owner}-{place}"}) + "\n"
        for place, (owner, text) in enumerate(rows)
    )


@pytest.fixture
def remote() -> Iterator[FileServer]:
    with file_server() as server:
        server.put("/desk/a.jsonl", lines(("4711", "amber ibis"), ("8", "grey"), ("4711", "amber ibis")))
        server.put("/desk/b.jsonl", lines(("8", "grey"), ("9", "grey")))
        yield server


def declared(remote: FileServer, **options: Any) -> RemoteFilesSource:
    columns = {"customer_id": "owner.id"}
    urls = ("s3://desk/*",)
    return RemoteFilesSource(kind="remote_files", urls=urls, endpoint=remote.url, columns=columns, **options)


def ingest(workspace: Workspace, source: RemoteFilesSource) -> None:
    ingest_source(source, root=workspace.settings.home, landed=landed_folder(workspace.settings, "small"))


def run(workspace: Workspace, source: RemoteFilesSource, out: Path) -> tuple[int, int]:
    """Extract as a run does; return the number of tickets and of dropped rows."""
    session: Any = SimpleNamespace(
        spec=SimpleNamespace(name="small", source=source),
        settings=workspace.settings,
        root=out,
        listeners=Listeners(),
        request=ANY_CASE,
    )
    out.mkdir()
    landed = landed_folder(workspace.settings, "small")
    with ingested_source(session):
        fingerprint = fingerprint_source(source, root=out, landed=landed)
        table = extract_tickets(
            source=source, fingerprint=fingerprint, place=place_of(source, root=out, landed=landed), out=out,
            forgotten=load_forgotten(workspace.settings),
        )  # fmt: skip
    assert fingerprint_source(source, root=out, landed=landed) == fingerprint, "a plan still knows the fingerprint"
    return table.rows.n_out, table.rows.n_dropped


def copies(workspace: Workspace) -> int:
    return len(list((workspace.settings.home / "ingest").glob("*/*/files/*")))


def test_copies_with_rows_of_the_customer_are_removed_and_later_ones_live_only_during_a_run(
    workspace: Workspace, remote: FileServer, tmp_path: Path
) -> None:
    source = declared(remote)
    ingest(workspace, source)
    (next((workspace.settings.home / "ingest").glob("*/*")) / "part-999999999.tmp").write_text("amber ibis, cut off")
    holdings = [
        each
        for each in plan_forgetting(workspace.settings, workspace.specs, "4711", root=workspace.root).held
        if each.kind == "landed"
    ]
    assert [(each.n_rows, each.fate) for each in holdings] == [(2, "removed")]
    certificate = forget(
        workspace.settings,
        workspace.specs,
        "4711",
        root=workspace.root,
        reason="case 17",
        actor="a person",
        unknown=False,
    )
    assert [each.n_rows for each in certificate.removals if each.place == holdings[0].place] == [2]
    assert (traces_left(workspace), copies(workspace)) == ([], 1)
    for number in range(2):
        assert run(workspace, source, tmp_path / f"out-{number}") == (3, 2)
        assert (traces_left(workspace), copies(workspace)) == ([], 1)
        assert traces(tmp_path / f"out-{number}", WORDS) == []
    assert len(remote.gets("/desk/b.jsonl")) == 1, "a copy without them is kept"
    ingest(workspace, source)  # like a run that was killed while it had the copy
    assert traces_left(workspace)
    assert len(apply_tombstones(workspace.settings)) == 1
    assert traces_left(workspace) == []
    remote.put("/desk/a.jsonl", lines(("8", "grey")))  # the owner removed the customer from the remote file
    assert run(workspace, source, tmp_path / "out") == (3, 0)
    assert copies(workspace) == 2


def test_the_declared_columns_decide_whose_rows_a_copy_contains(workspace: Workspace, remote: FileServer) -> None:
    ingest(workspace, declared(remote).model_copy(update={"columns": {"customer_id": "reply"}}))
    assert plan_forgetting(workspace.settings, workspace.specs, "4711", root=workspace.root).held == ()
    ingest(workspace, declared(remote))
    assert [
        each.n_rows for each in plan_forgetting(workspace.settings, workspace.specs, "4711", root=workspace.root).held
    ] == [2]


@pytest.mark.parametrize("content", ['{"owner": {"id": "4711"}, "body": "amber ibis"', "amber ibis\n", b"PAR1 4711"])
def test_copies_with_unreadable_rows_are_removed_too(
    workspace: Workspace, remote: FileServer, content: str | bytes
) -> None:
    remote.put("/desk/c.jsonl" if isinstance(content, str) else "/desk/c.parquet", content)
    ingest(workspace, declared(remote))
    assert copies(workspace) == 3
    forget(
        workspace.settings,
        workspace.specs,
        "4711",
        root=workspace.root,
        reason="case 17",
        actor="a person",
        unknown=False,
    )
    assert (traces_left(workspace), copies(workspace)) == ([], 1)
