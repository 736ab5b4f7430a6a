"""Tombstones, journal and marks, in a file and in Postgres: entries stay and move with the ledger."""

from typing import Any

import pytest

from flows.ledger.ledger import Ledger
from flows.ledger.rows import RunVerdict
from schemas.errors import SecurityError
from schemas.forget import Holding, LearnedVersion, Tombstone

HELD = Holding(kind="result", place="store/extract/k1", digest="d1", n_rows=3, fate="removed")


def tombstone(at: str, *tickets: str) -> Tombstone:
    return Tombstone(id="one", key_id="k", owners=("o",), tickets=tickets, reason="r", actor="a", at=at)


def test_a_ledger_without_forgotten_customers_has_no_tombstones(ledger: Ledger) -> None:
    ledger.start_run("run-1", pipeline="small", model_name="replies", config_json="{}")
    assert ledger.tombstones() == ledger.journal() == ledger.marked() == ()
    assert ledger.gone_at("store/extract/k1") is None
    assert not ledger.is_unfinished("one")


def test_an_interrupted_removal_is_resumed(ledger: Ledger) -> None:
    ledger.add_tombstone(tombstone("2", "b"))
    ledger.add_tombstone(tombstone("1", "a"))
    assert [(each.at, each.tickets) for each in ledger.tombstones()] == [("1", ("a", "b"))]
    began = ledger.begin_erasure("one")
    ledger.record_removals("one", began, [HELD])
    ledger.record_removals("one", began, [HELD])
    assert ledger.begin_erasure("one") == began
    assert [each.place for each in ledger.journal("one", began) if each.event == "goes"] == [HELD.place]
    assert ledger.is_unfinished("one")
    ledger.end_erasure("one", began)
    assert not ledger.is_unfinished("one")
    assert ledger.begin_erasure("one") != began
    removed = ledger.gone_at(HELD.place)
    assert removed is not None
    assert removed.n_rows == 3


def test_the_journal_is_append_only(ledger: Ledger) -> None:
    ledger.record_removals("one", "now", [HELD])
    for statement in ("UPDATE forgettings SET n_rows = 0", "DELETE FROM forgettings"):
        with pytest.raises(Exception, match="append-only"), ledger.write() as db:
            db.execute(statement)
    assert [each.n_rows for each in ledger.journal("one")] == [3]


def test_a_marked_version_is_sent_once_and_never_promoted(ledger: Ledger, kit: Any) -> None:
    ledger.start_run("run-1", pipeline="small", model_name="replies", config_json="{}")
    ledger.record_candidate(kit.candidate_ref(ledger.root, 1), verdict="PROMOTE", reason="better")
    before = len(ledger.pending_projections())
    version = LearnedVersion(name="replies", version="1", run_id="run-1", how="directly", n_rows=7)
    ledger.mark_versions("one", [version])
    ledger.mark_versions("one", [version])
    assert len(ledger.pending_projections()) == before + 1
    assert [(each.version, each.n_rows) for each in ledger.marked("replies", "1")] == [("1", 7)]
    with pytest.raises(SecurityError, match="TG0832"):
        ledger.promote("replies", expected=None, version="1", verdict=RunVerdict("run-1", "better"))
