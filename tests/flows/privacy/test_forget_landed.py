"""An ingested source loses a forgotten customer's rows and bytes, and ingests no later ones."""

import json
from functools import partial
from pathlib import Path

import pytest

from flows.context.ingest import landed_folder
from flows.privacy.forget import forget, plan_forgetting
from flows.privacy.keys import load_forgotten
from schemas.remote_source import PostgresSource, ZendeskSource
from tasks.curate.extract import extract_tickets
from tasks.sources.landing import FILE, LandedRow, open_landing
from tasks.sources.registry import fingerprint_source, kind_of, place_of, source_folder
from tasks.sources.row_owner import RowOwner, landed_customers, note_owner
from tests.support.forgetful_workspace import Workspace
from tests.support.traces import traces

ZENDESK = ZendeskSource(
    kind="zendesk", subdomain="acme", email="a@b.example", api_token="${env:NONE}", start="2026-06-01"
)
POSTGRES = PostgresSource(
    kind="postgres", dsn="${env:NONE}", table="tickets", key=("owner", "id"), cursor="at",
    columns={"ticket_id": "id", "customer_id": "owner"},
)  # fmt: skip
WORDS = ("4711", "amber ibis")


def ticket(number: int, requester: int, text: str, *, version: str = "1") -> list[LandedRow]:
    content = {"id": number, "requester_id": requester, "subject": text}
    authors = [(requester, "end-user"), (900, "agent"), (4711, "end-user")]
    return [
        LandedRow("ticket", str(number), json.dumps(content), status="solved", version=version, fetched=version),
        *(
            LandedRow(
                "comment", str(number * 10 + position), parent=str(number),
                content=json.dumps({"author_id": author, "role": role, "public": True, "created_at": str(position),
                                    "body": "amber ibis" if author == 4711 else text}),
            )
            for position, (author, role) in enumerate(authors)
        ),
    ]  # fmt: skip


def row(owner: int, number: int, text: str | None) -> LandedRow:
    content = text and json.dumps({"owner": owner, "id": number, "body": text, "reply": "r"})
    return LandedRow("row", json.dumps([str(owner), str(number)]), content, state="live" if text else "deleted")


def fill(workspace: Workspace, source: ZendeskSource | PostgresSource) -> Path:
    folder = source_folder(source, landed_folder(workspace.settings, "small"))
    assert folder is not None
    if isinstance(source, ZendeskSource):
        rows = [*ticket(1, 4711, "amber ibis"), *ticket(2, 4711, "amber ibis"), *ticket(3, 8, "grey")]
    else:
        rows = [row(4711, 1, "amber ibis"), row(4711, 2, None), row(8, 3, "grey")]
    with open_landing(folder) as landing:
        note_owner(landing, kind_of(source).owner(source))
        with landing.step():
            landing.put(rows)
        landing.finish(at="2026-06-02")
    return folder / FILE


def traces_left(workspace: Workspace) -> list[str]:
    return traces(workspace.settings.home / "ingest", WORDS)


def tickets(workspace: Workspace, source: ZendeskSource | PostgresSource, out: Path) -> int:
    out.mkdir()
    landed = landed_folder(workspace.settings, "small")
    fingerprint = fingerprint_source(source, root=out, landed=landed)
    return extract_tickets(
        source=source, fingerprint=fingerprint, place=place_of(source, root=out, landed=landed), out=out
    ).rows.n_out


@pytest.mark.parametrize("source", [ZENDESK, POSTGRES], ids=["zendesk", "postgres"])
def test_rows_and_bytes_are_removed_and_not_ingested_again(
    workspace: Workspace, source: ZendeskSource | PostgresSource, tmp_path: Path
) -> None:
    file = fill(workspace, source)
    n_rows = 7 if isinstance(source, ZendeskSource) else 2  # their tickets and comments
    (file.parent / f".{FILE}.999999999.rewrite").write_bytes(file.read_bytes())
    assert len({name.partition(":")[0] for name in traces_left(workspace)}) == 2
    holdings = plan_forgetting(workspace.settings, workspace.specs, "4711", root=workspace.root)
    place = file.relative_to(workspace.settings.home).as_posix()
    assert [(each.place, each.fate) for each in holdings.held if each.kind == "landed"] == [(place, "rewritten")]
    certificate = forget(
        workspace.settings,
        workspace.specs,
        "4711",
        root=workspace.root,
        reason="case 17",
        actor="a person",
        unknown=False,
    )
    assert [each.n_rows for each in certificate.removals if each.place == place] == [n_rows]
    assert traces_left(workspace) == []
    assert len(landed_customers(file)) == 1
    assert tickets(workspace, source, tmp_path / "out") == 1

    forgotten = load_forgotten(workspace.settings)
    assert forgotten is not None
    owner = kind_of(source).owner(source)
    with open_landing(file.parent, skips=partial(owner.skips, forgotten=forgotten)) as landing, landing.step():
        if isinstance(source, ZendeskSource):
            landing.put(ticket(4, 4711, "amber ibis")[:1])
            landing.put(ticket(3, 4711, "amber ibis", version="2")[:1])  # its requester changed
            assert landing.query("SELECT count(*) FROM rows") == [(0,)]
        else:
            landing.put([row(4711, 5, "amber ibis"), row(4711, 1, None)])
            assert landing.query("SELECT count(*) FROM rows") == [(1,)]


def test_the_columns_of_the_source_identify_the_customer() -> None:
    content = json.dumps({"payload": {"user": {"id": 7}}, "role": None, "author_id": 8})
    assert RowOwner("payload.user.id").customer("row", "[]", content) == "7"
    assert RowOwner("payload.user.id").customer("comment", "1", content) is None
    assert RowOwner("requester_id").customer("comment", "1", content) == "8"
    assert RowOwner("x", in_key=1).customer("row", '["a", "b"]', None) == "b"
    assert RowOwner("x").customer("faulty", "1", '"reason"') is None
