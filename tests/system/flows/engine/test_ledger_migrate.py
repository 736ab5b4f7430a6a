"""Ledgers of other versions, and ledgers that move from one place to another with their history."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from flows.engine.ledger import Ledger
from flows.engine.ledger_migrate import copy_ledger, ledger_digest
from flows.engine.runs import Seen
from schemas.errors import StorageError
from schemas.ticks import Decision


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


def test_a_ledger_moves_into_postgres_and_back_with_every_row_and_goes_on_counting(in_file, kit, postgres, tmp_path):
    fill(in_file, kit, (1, 2))
    shared = Ledger(in_file.root, postgres.fresh())
    counts = copy_ledger(in_file, shared)
    assert counts["runs"] == counts["champion_events"] == counts["ticks"] == counts["marks"] == 2
    assert ledger_digest(shared) == ledger_digest(in_file)
    assert shared.history() == in_file.history()
    assert shared.champion("replies") == in_file.champion("replies")
    fill(shared, kit, (3,))
    assert [row.seq for row in shared.runs()] == [3, 2, 1]
    assert ledger_digest(shared) != ledger_digest(in_file)
    back = Ledger(tmp_path / "back")
    copy_ledger(shared, back)
    assert ledger_digest(back) == ledger_digest(shared)
    assert back.tick_of("run-3") == shared.tick_of("run-3")
    fill(back, kit, (4,))
    assert len(back.history()) == 4


def test_an_altered_history_is_not_copied(in_file, kit, postgres):
    fill(in_file, kit, (1, 2))
    with closing(sqlite3.connect(in_file.path)) as db, db:
        db.execute("DROP TRIGGER champion_events_stay")
        db.execute("UPDATE champion_events SET actor = 'nobody' WHERE seq = 1")
    shared = Ledger(in_file.root, postgres.fresh())
    with pytest.raises(StorageError, match="TG0533"):
        copy_ledger(in_file, shared)
    assert not shared.exists()
