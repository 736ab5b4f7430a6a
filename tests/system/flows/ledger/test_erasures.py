"""Tombstones, journal and marks, in a file and in Postgres: entries stay and move with the ledger."""

from typing import Any

import pytest

from flows.ledger.ledger import Ledger
from flows.ledger.migrate import copy_ledger, ledger_digest
from schemas.forget import LearnedVersion
from tests.flows.ledger.test_erasures import HELD, tombstone


def test_tombstones_move_to_postgres_with_the_ledger_and_continue_numbering(in_file: Ledger, postgres: Any) -> None:
    in_file.add_tombstone(tombstone("1", "a"))
    in_file.record_removals("one", "now", [HELD])
    in_file.mark_versions("one", [LearnedVersion(name="r", version="1", run_id="x", how="directly", n_rows=1)])
    moved = Ledger(in_file.root.parent / "other", postgres.fresh())
    assert copy_ledger(in_file, moved)["forgettings"] == 1
    assert ledger_digest(moved) == ledger_digest(in_file)
    moved.end_erasure("one", "now")
    assert [each.event for each in moved.journal("one")] == ["goes", "ended"]
    with pytest.raises(Exception, match="append-only"), moved.write() as db:
        db.execute("DELETE FROM forgettings")
