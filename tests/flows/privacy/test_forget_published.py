"""The published warehouse loses a forgotten customer's rows and bytes; a snapshot with such rows is removed."""

from pathlib import Path
from typing import Any

from flows.privacy.forget import forget, plan_forgetting
from tasks.curate.rows import ticket_table, write_tickets
from tasks.curate.warehouse_tables import TABLES, create_tables
from tasks.storage.warehouse import connect
from tests.support.forgetful_workspace import CUSTOMER, TEXT, WORDS, Workspace, pseudonym, rows
from tests.support.traces import traces

DEFAULTS = {"VARCHAR": "", "BIGINT": 0, "BOOLEAN": False, "DOUBLE": 0.0}


def publish(workspace: Workspace) -> Path:
    """Publish raw rows with source ids, curated rows with pseudonyms, and a ticket merged into a forgotten one."""
    folder = workspace.settings.home / "warehouse" / "small"
    snapshot = folder / "snapshots" / "s1"
    snapshot.mkdir(parents=True)
    write_tickets(ticket_table(rows(redacted=False)), snapshot, name="raw_tickets.parquet")
    forgotten_id = pseudonym("vq-1")
    merged = {"step": "dedup", "ticket_id": "t-9", "outcome": "merged", "code": "near", "reason": "alike",
              "source": "tickets.jsonl", "source_line": 9, "kept_id": forgotten_id, "cluster_id": forgotten_id,
              "shared_run": TEXT}  # fmt: skip
    with connect(folder / "warehouse.duckdb") as db:
        create_tables(db)
        insert(db, "snapshot", {"snapshot_id": "s1", "n_read": 4, "n_curated": 4})
        for raw, clean in zip(rows(redacted=False), rows(redacted=True), strict=True):
            insert(db, "raw_tickets", raw)
            insert(db, "curated", {"split": "train", **clean})
        insert(db, "removed", merged)
        insert(db, "duplicates", {"ticket_id": "t-9", "cluster_id": forgotten_id, "kept_id": forgotten_id})
        insert(db, "triggers", {"trigger_id": forgotten_id, "ticket_id": forgotten_id, "phrase": TEXT})
        insert(db, "label_suspects", {"ticket_id": forgotten_id})
    return folder


def insert(db: Any, table: str, values: dict[str, Any]) -> None:
    needed = {each.name: DEFAULTS.get(each.sql_type) for each in TABLES[table].columns if not each.nullable}
    row = {**needed, **values}
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))


def test_the_published_warehouse_contains_nothing_of_the_customer(workspace: Workspace) -> None:
    folder = publish(workspace)
    found = traces(folder, WORDS)
    assert {name.partition(":")[0] for name in found} == {"warehouse.duckdb", "snapshots/s1/raw_tickets.parquet"}
    fates = {
        each.kind: each.fate
        for each in plan_forgetting(workspace.settings, workspace.specs, CUSTOMER, root=workspace.root).held
    }
    assert (fates["warehouse"], fates["snapshot"]) == ("rewritten", "removed")
    forget(
        workspace.settings,
        workspace.specs,
        CUSTOMER,
        root=workspace.root,
        reason="case 17",
        actor="a person",
        unknown=False,
    )
    assert traces(folder, WORDS) == []
    assert not (folder / "snapshots" / "s1").exists()
    with connect(folder / "warehouse.duckdb", read_only=True) as db:
        assert db.execute("SELECT ticket_id FROM raw_tickets ORDER BY 1").fetchall() == [("t-1",), ("t-2",)]
        assert db.execute("SELECT count(*) FROM curated").fetchall() == [(2,)]
        assert db.execute("SELECT ticket_id, kept_id, shared_run FROM removed").fetchall() == [("t-9", None, None)]
        assert db.execute("SELECT count(*) FROM duplicates").fetchall() == [(0,)]
        [(snapshot_id, n_curated)] = db.execute("SELECT snapshot_id, n_curated FROM snapshot").fetchall()
        assert (snapshot_id != "s1", n_curated) == (True, 2)
