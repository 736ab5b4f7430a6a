"""Ledgers of other versions, and ledgers that move from one place to another with their history."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from flows.engine.history import FIRST_HASH
from flows.engine.ledger import Ledger
from flows.engine.ledger_migrate import copy_ledger, ledger_digest, upgrade_file
from flows.engine.ledger_tables import VERSION
from flows.engine.runs import Seen
from schemas.errors import StorageError
from schemas.ticks import Decision
from tasks.files import sha256_json

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


def fill(ledger, kit, numbers):
    """Runs, steps, ticks, marks, candidates and a champion."""
    for number in numbers:
        run_id = f"run-{number}"
        ledger.start_run(run_id, pipeline="small", model_name="replies", input_digest="in", config_json="{}")
        ledger.record_failure(run_id, "train", ValueError())
        decision = Decision(run=True, code="first", reason="r")
        ledger.record_tick(run_id, pipeline="small", cause="person", scheduled_for="", decision=decision)
        ref = kit.candidate_ref(ledger.root, number)
        version = ledger.record_candidate(ref, verdict="PROMOTE", reason="better")
        champion = ledger.champion("replies")
        ledger.promote(
            "replies", expected=champion and champion.version, version=version, run_id=run_id, reason="better"
        )
        ledger.finish_run(run_id, status="DONE", verdict="PROMOTE", exit_code=0, seen=Seen("s", "", number))


def make_old(ledger):
    """The file as the first version of the program wrote it."""
    previous = FIRST_HASH
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as db:
        db.executescript("PRAGMA foreign_keys = OFF;" + OLD_EVENTS)
        db.row_factory = sqlite3.Row
        for row in db.execute("SELECT * FROM champion_events ORDER BY seq").fetchall():  # hashed as it was then
            event = {**{name: row[name] for name in row.keys() if name != "hash"}, "prev_hash": previous}  # noqa: SIM118
            previous = sha256_json(event)
            db.execute(
                "UPDATE champion_events SET prev_hash = ?, hash = ? WHERE seq = ?",
                (event["prev_hash"], previous, row["seq"]),
            )


def test_a_ledger_of_the_first_version_is_backed_up_and_brought_up_to_date_and_its_chain_still_holds(
    in_file, kit, tmp_path
):
    fill(in_file, kit, (1, 2))
    make_old(in_file)
    before = in_file.path.read_bytes()
    with pytest.raises(StorageError, match=r"TG0548.*version 1 of an older tunegate"):
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


def test_a_newer_ledger_is_left_alone(in_file, kit, tmp_path):
    assert upgrade_file(in_file.path, backups=tmp_path / "backups") is None
    fill(in_file, kit, (1,))
    with closing(sqlite3.connect(in_file.path)) as db:
        db.execute("PRAGMA user_version = 3")
    with pytest.raises(StorageError, match="TG0530"):
        upgrade_file(in_file.path, backups=tmp_path / "backups")
    assert not (tmp_path / "backups").exists()


def test_a_ledger_in_use_is_not_copied_over(ledger, kit, tmp_path):
    fill(ledger, kit, (1,))
    source = Ledger(tmp_path / "other")
    fill(source, kit, (1, 2))
    before = ledger_digest(ledger)
    with pytest.raises(StorageError, match=r"TG0518.*runs, steps, candidates"):
        copy_ledger(source, ledger)
    assert ledger_digest(ledger) == before
