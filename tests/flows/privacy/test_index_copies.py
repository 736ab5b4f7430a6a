"""Copies of remote files lose whoever is forgotten, although the file at its owner's still holds them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.context.ingest import landed_folder, source_at_hand
from flows.context.listener import Listeners
from flows.privacy.forget import apply_tombstones, forget, plan_forgetting
from flows.privacy.keys import load_forgotten
from schemas.remote_files import RemoteFilesSource
from tasks.curate.extract import extract_tickets, fingerprint_source
from tasks.curate.ingest.bring import bring_in
from tests.support.file_server import FileServer, file_server
from tests.support.forgetful_workspace import KEY, Workspace, build
from tests.support.traces import traces

WORDS = ("4711", "amber ibis")


def lines(*rows: tuple[str, str]) -> str:
    return "".join(
        json.dumps({"owner": {"id": owner}, "body": text, "reply": "r", "ticket_id": f"{owner}-{place}"}) + "\n"
        for place, (owner, text) in enumerate(rows)
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("VQ_KEY", KEY)
    return build(tmp_path)


@pytest.fixture
def afar() -> Iterator[FileServer]:
    with file_server() as server:
        server.put("/desk/a.jsonl", lines(("4711", "amber ibis"), ("8", "grey"), ("4711", "amber ibis")))
        server.put("/desk/b.jsonl", lines(("8", "grey"), ("9", "grey")))
        yield server


def declared(afar: FileServer, **options: Any) -> RemoteFilesSource:
    columns = {"customer_id": "owner.id"}
    return RemoteFilesSource(kind="remote_files", urls=("s3://desk/*",), endpoint=afar.url, columns=columns, **options)


def bring(here: Workspace, source: RemoteFilesSource) -> None:
    bring_in(source, root=here.settings.home, landed=landed_folder(here.settings, "small"))


def run(here: Workspace, source: RemoteFilesSource, out: Path) -> tuple[int, int]:
    """As a run does it: tickets, and rows that are dropped."""
    session: Any = SimpleNamespace(
        spec=SimpleNamespace(name="small", source=source), settings=here.settings, root=out, listeners=Listeners()
    )
    out.mkdir()
    landed = landed_folder(here.settings, "small")
    with source_at_hand(session):
        fingerprint = fingerprint_source(source, root=out, landed=landed)
        table = extract_tickets(
            source=source, fingerprint=fingerprint, root=out, landed=landed, out=out,
            forgotten=load_forgotten(here.settings),
        )  # fmt: skip
    assert fingerprint_source(source, root=out, landed=landed) == fingerprint, "a plan still knows what was here"
    return table.rows.n_out, table.rows.n_dropped


def left(here: Workspace) -> list[str]:
    return traces(here.settings.home / "ingest", WORDS)


def copies(here: Workspace) -> int:
    return len(list((here.settings.home / "ingest").glob("*/*/files/*")))


def test_copies_with_rows_of_the_customer_go_and_later_ones_stay_for_a_run_alone(
    here: Workspace, afar: FileServer, tmp_path: Path
) -> None:
    source = declared(afar)
    bring(here, source)
    (next((here.settings.home / "ingest").glob("*/*")) / "part-999999999.tmp").write_text("amber ibis, cut off")
    held = [each for each in plan_forgetting(here.settings, here.specs, "4711").held if each.kind == "landed"]
    assert [(each.n_rows, each.fate) for each in held] == [(2, "removed")]
    certificate = forget(here.settings, here.specs, "4711", reason="case 17", actor="a person", unknown=False)
    assert [each.n_rows for each in certificate.removals if each.place == held[0].place] == [2]
    assert (left(here), copies(here)) == ([], 1)
    for number in range(2):
        assert run(here, source, tmp_path / f"out-{number}") == (3, 2)
        assert (left(here), copies(here)) == ([], 1)
        assert traces(tmp_path / f"out-{number}", WORDS) == []
    assert len(afar.gets("/desk/b.jsonl")) == 1, "a copy without them is kept"
    bring(here, source)  # a run was killed while the copy was here
    assert left(here)
    assert len(apply_tombstones(here.settings)) == 1
    assert left(here) == []
    afar.put("/desk/a.jsonl", lines(("8", "grey")))  # its owner has removed them there
    assert run(here, source, tmp_path / "out") == (3, 0)
    assert copies(here) == 2


def test_with_other_columns_a_copy_names_other_customers(here: Workspace, afar: FileServer) -> None:
    bring(here, declared(afar).model_copy(update={"columns": {"customer_id": "reply"}}))
    assert plan_forgetting(here.settings, here.specs, "4711").held == ()
    bring(here, declared(afar))
    assert [each.n_rows for each in plan_forgetting(here.settings, here.specs, "4711").held] == [2]


@pytest.mark.parametrize("content", ['{"owner": {"id": "4711"}, "body": "amber ibis"', "amber ibis\n", b"PAR1 4711"])
def test_copies_with_rows_that_nobody_can_read_may_be_anybodys_and_go_as_well(
    here: Workspace, afar: FileServer, content: str | bytes
) -> None:
    afar.put("/desk/c.jsonl" if isinstance(content, str) else "/desk/c.parquet", content)
    bring(here, declared(afar))
    assert copies(here) == 3
    forget(here.settings, here.specs, "4711", reason="case 17", actor="a person", unknown=False)
    assert (left(here), copies(here)) == ([], 1)
