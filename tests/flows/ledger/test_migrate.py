"""Ledgers of other versions, and ledgers that move to another place with their history."""

import sqlite3
from contextlib import closing

import psycopg2
import pytest

from flows.ledger.history import FIRST_HASH
from flows.ledger.ledger import Ledger
from flows.ledger.migrate import copy_ledger, ledger_digest, upgrade_file
from flows.ledger.postgres import LedgerPostgres
from flows.ledger.tables import VERSION
from schemas.errors import GateError, StorageError
from tasks.storage.files import sha256_json
from tests.support.filled_ledger import fill

INTEGRITY = (sqlite3.IntegrityError, psycopg2.IntegrityError)
OLD_EVENTS = """
DROP TABLE champion_events;
CREATE TABLE champion_events (
    seq INTEGER PRIMARY KEY, name TEXT NOT NULL, from_version TEXT, to_version TEXT NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('promote', 'rollback')), reason TEXT NOT NULL, actor TEXT NOT NULL,
    run_id TEXT NOT NULL, verdict_digest TEXT NOT NULL, at TEXT NOT NULL, prev_hash TEXT NOT NULL, hash TEXT NOT NULL
);
INSERT INTO champion_events VALUES
(1, 'replies', NULL, '1', 'promote', 'better', 'pipeline', 'run-1', 'verdict-1', '2026-11-26T00:00:00', '', ''),
(2, 'replies', '1', '2', 'promote', 'better', 'pipeline', 'run-2', 'verdict-2', '2026-11-26T00:00:01', '', '');
PRAGMA user_version = 1;
"""


OLD_TRIGGERS = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'champion_events is append-only' USING ERRCODE = 'integrity_constraint_violation'; END $$;
CREATE TRIGGER champion_events_stay BEFORE UPDATE OR DELETE ON champion_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER champion_events_remain BEFORE TRUNCATE ON champion_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""
"""The triggers that protected events in a Postgres ledger of version 2."""


NEW_TABLES = ("identity", "rewrites", "held_out", "verdicts", "acceptances", "journal", "touched")
NEW_COLUMNS = (("champion_events", "evidence"), ("champion_events", "note"), ("candidates", "evidence"))


def make_version_3(ledger):
    """Turn the ledger into one of the third version: without the verdict UNCOMPARED."""
    if isinstance(ledger.kept, LedgerPostgres):
        with ledger.kept._connected() as connection, connection.cursor() as cursor:
            for table in ("runs", "candidates"):
                cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_verdict_check")
                cursor.execute(
                    f"ALTER TABLE {table} ADD CONSTRAINT {table}_verdict_check"
                    " CHECK (verdict IN ('PROMOTE', 'HOLD', 'BLOCK', 'ERROR'))"
                )
            cursor.execute("UPDATE ledger_version SET version = 3")
            connection.commit()
        return
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, ?, '')", ("'UNCOMPARED', ",))
        db.execute("PRAGMA user_version = 3")


def make_version_2(ledger):
    """Turn the ledger into one of the second version: without a journal."""
    make_version_3(ledger)
    if isinstance(ledger.kept, LedgerPostgres):
        with ledger.kept._connected() as connection, connection.cursor() as cursor:
            for function in ("refuse_change", "note_touched"):
                cursor.execute(f"DROP FUNCTION {function} CASCADE")
            for table in NEW_TABLES:
                cursor.execute(f"DROP TABLE {table}")
            for table, column in NEW_COLUMNS:
                cursor.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
            cursor.execute("DROP INDEX steps_by_key")
            cursor.execute("UPDATE ledger_version SET version = 2")
            cursor.execute(OLD_TRIGGERS)
            connection.commit()
        return
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        for table in NEW_TABLES:
            db.execute(f"DROP TABLE {table}")
        for table, column in NEW_COLUMNS:
            db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        db.execute("DROP INDEX steps_by_key")
        db.execute("PRAGMA user_version = 2")


def make_version_1(ledger):
    """Turn the file into one of the first version."""
    make_version_2(ledger)
    previous = FIRST_HASH
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as db:
        db.executescript("PRAGMA foreign_keys = OFF;" + OLD_EVENTS)
        db.row_factory = sqlite3.Row
        for row in db.execute("SELECT * FROM champion_events ORDER BY seq").fetchall():  # hash like that version
            event = {**{name: row[name] for name in row.keys() if name != "hash"}, "prev_hash": previous}  # noqa: SIM118
            previous = sha256_json(event)
            db.execute(
                "UPDATE champion_events SET prev_hash = ?, hash = ? WHERE seq = ?",
                (event["prev_hash"], previous, row["seq"]),
            )


def test_a_ledger_of_the_first_version_is_backed_up_and_upgraded_with_a_valid_chain(in_file, kit, tmp_path):
    fill(in_file, kit, (1, 2))
    make_version_1(in_file)
    before = in_file.path.read_bytes()
    with pytest.raises(StorageError, match=r"TG0530.*version 1 of an older tunegate"):
        in_file.history()
    assert in_file.path.read_bytes() == before
    version, backup = upgrade_file(in_file.path, backups=tmp_path / "backups")
    assert version == 1
    assert backup.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(backup)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT count(*) FROM champion_events").fetchone() == (2,)
    assert upgrade_file(in_file.path, backups=tmp_path / "backups") is None
    assert [event.verdict for event in in_file.history()] == ["", ""]
    fill(in_file, kit, (3,))
    assert len(in_file.history()) == 3
    with closing(sqlite3.connect(in_file.path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute("DELETE FROM champion_events")


def test_a_ledger_of_the_second_version_gets_a_journal_of_every_row(ledger, kit, tmp_path):
    fill(ledger, kit, (1, 2))
    make_version_2(ledger)
    with pytest.raises(StorageError, match=r"TG0530.*version 2 of an older tunegate"):
        ledger.history()
    assert upgraded_from(ledger, tmp_path) == 2
    if isinstance(ledger.kept, LedgerPostgres):
        assert ledger.kept.upgrade() is None
    ledger.check()
    assert len(ledger.history()) == 2
    fill(ledger, kit, (3,))
    ledger.check()
    with pytest.raises(INTEGRITY, match="append-only"), ledger.write() as db:
        db.execute("DELETE FROM champion_events")
    with ledger.write() as db:
        db.execute("UPDATE runs SET reason = 'written by tunegate' WHERE run_id = 'run-1'")
    ledger.check()


def upgraded_from(ledger, tmp_path):
    """Upgrade the ledger and return the version that it had."""
    if isinstance(ledger.kept, LedgerPostgres):
        return ledger.kept.upgrade()
    return upgrade_file(ledger.path, backups=tmp_path / "backups")[0]


def test_a_ledger_of_the_third_version_keeps_its_rows_and_takes_the_verdict_uncompared(ledger, kit, tmp_path):
    fill(ledger, kit, (1, 2))
    make_version_3(ledger)
    with pytest.raises(StorageError, match=r"TG0530.*version 3 of an older tunegate"):
        ledger.history()
    assert upgraded_from(ledger, tmp_path) == 3
    ledger.check()
    assert [row.verdict for row in ledger.candidates("replies")] == ["PROMOTE", "PROMOTE"]
    assert ledger.champion("replies").version == "2"
    ledger.start_run("run-3", pipeline="small", model_name="replies", input_digest="in", config_json="{}")
    version = ledger.record_candidate(kit.candidate_ref(ledger.root, 3), verdict="UNCOMPARED", reason="no champion")
    ledger.finish_run("run-3", status="DONE", verdict="UNCOMPARED", exit_code=10)
    assert ledger.last_verdict("small", "in").run_id == "run-3"
    ledger.check()
    with pytest.raises(GateError, match="not compared with the champion"):
        ledger.force("replies", expected="2", version=version, reason="why", actor="ada")
    with pytest.raises(GateError, match="has verdict PROMOTE, not UNCOMPARED"):
        ledger.force("replies", expected="2", version="1", reason="why", actor="ada", uncompared=True)
    event = ledger.force("replies", expected="2", version=version, reason="why", actor="ada", uncompared=True)
    assert (event.action, event.verdict, event.actor, event.reason) == ("force", "UNCOMPARED", "ada", "why")


def test_a_newer_ledger_is_not_changed(in_file, kit, tmp_path):
    assert upgrade_file(in_file.path, backups=tmp_path / "backups") is None
    fill(in_file, kit, (1,))
    with closing(sqlite3.connect(in_file.path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(StorageError, match="TG0530"):
        upgrade_file(in_file.path, backups=tmp_path / "backups")
    assert not (tmp_path / "backups").exists()


def test_a_ledger_with_runs_is_not_overwritten(ledger, kit, tmp_path):
    fill(ledger, kit, (1,))
    source = Ledger(tmp_path / "other")
    fill(source, kit, (1, 2))
    before = ledger_digest(ledger)
    with pytest.raises(StorageError, match=r"TG0531.*runs, steps, candidates"):
        copy_ledger(source, ledger)
    assert ledger_digest(ledger) == before
