"""A ledger moves into Postgres and back with its history."""

import sqlite3
from contextlib import closing

import pytest

from flows.ledger.ledger import Ledger
from flows.ledger.migrate import copy_ledger, ledger_digest
from schemas.errors import StorageError
from tests.support.filled_ledger import fill


def test_a_ledger_moves_into_postgres_and_back_with_every_row_and_continues_numbering(in_file, kit, postgres, tmp_path):
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
        db.execute("DROP TRIGGER champion_events_no_update")
        db.execute("UPDATE champion_events SET actor = 'nobody' WHERE seq = 1")
    shared = Ledger(in_file.root, postgres.fresh())
    with pytest.raises(StorageError, match="TG0580"):
        copy_ledger(in_file, shared)
    assert not shared.exists()
