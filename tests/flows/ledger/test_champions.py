"""The champion: one transaction moves it, one of many processes wins, and its history reveals tampering."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from flows.ledger.history import checked_events
from flows.ledger.ledger import Ledger
from flows.ledger.postgres import LedgerPostgres
from flows.ledger.rows import RunVerdict
from flows.workspace import clock
from schemas.errors import ConfigError, GateError, StorageError
from tests.support.postgres import errors_of

INTEGRITY = errors_of("IntegrityError")


@pytest.fixture
def promote(kit, ledger):
    """Record candidate number N, promote it over `expected`, and return its version."""

    def promote(number, expected):
        ref = kit.candidate_ref(ledger.root, number)
        version = ledger.record_candidate(ref, verdict="PROMOTE", reason="better")
        ledger.promote("replies", expected=expected, version=version, verdict=RunVerdict(ref.run_id, "better"))
        return version

    return promote


def test_the_first_promotion_makes_a_champion_that_is_read_back_unchanged(kit, ledger, promote):
    assert ledger.champion("replies") is None
    assert promote(1, None) == "1"
    champion = ledger.champion("replies")
    assert champion.promoted_at
    assert champion == kit.candidate_ref(ledger.root, 1).model_copy(
        update={"version": "1", "promoted_at": champion.promoted_at}
    )
    assert ledger.champions() == (champion,)
    assert ledger.champion("another name") is None


def test_the_best_champion_is_the_last_that_was_shown_to_be_better_than_the_best(kit, ledger):
    def promote(number, expected, better_than):
        ref = kit.candidate_ref(ledger.root, number)
        evidence = {"better_than": better_than}
        version = ledger.record_candidate(ref, verdict="PROMOTE", reason="better", evidence=evidence)
        ledger.promote("replies", expected=expected, version=version, verdict=RunVerdict(ref.run_id, "better"))
        return ledger.best_champion("replies")

    assert ledger.best_champion("replies") is None
    assert promote(1, None, "") == "1"
    assert promote(2, "1", "") == "1"  # within the margin, and better by chance for all that is known
    assert promote(3, "2", "2") == "1"  # than the champion, which was not the best
    assert promote(4, "3", "1") == "4"
    assert promote(5, "4", "4") == "5"
    ledger.rollback("replies", to="3", reason="both were wrong", actor="ada")
    assert ledger.best_champion("replies") == "1"
    assert promote(6, "3", "4") == "1"
    worse = ledger.record_candidate(kit.candidate_ref(ledger.root, 7), verdict="BLOCK", reason="worse")
    ledger.force("replies", expected="6", version=worse, reason="other answers are wanted now", actor="ada")
    assert ledger.best_champion("replies") == "7"
    assert ledger.best_champion("another name") is None


def test_the_best_champion_of_a_past_day_follows_the_order_of_events_though_clocks_differ(kit, ledger, monkeypatch):
    def at(hour):
        monkeypatch.setenv(clock.VARIABLE, f"2026-03-01T{hour:02}:00:00+00:00")

    for number, expected, hour in ((1, None, 10), (2, "1", 5)):  # the first host's clock is ahead
        at(hour)
        ref = kit.candidate_ref(ledger.root, number)
        version = ledger.record_candidate(ref, verdict="PROMOTE", reason="better", evidence={"better_than": "1"})
        ledger.promote("replies", expected=expected, version=version, verdict=RunVerdict(ref.run_id, "better"))
    at(6)
    ledger.rollback("replies", reason="wrong", actor="ada")
    days = [ledger.best_champion("replies", before=f"2026-03-01T{hour:02}:30:00+00:00") for hour in (4, 5, 6, 10)]
    assert days == [None, "2", "1", "1"]


def test_the_same_candidate_gets_the_same_version_and_is_sent_once(kit, ledger):
    ref = kit.candidate_ref(ledger.root, 1)
    versions = [ledger.record_candidate(ref, verdict="HOLD", reason="few items") for _ in range(3)]
    assert versions == ["1", "1", "1"]
    assert len(ledger.pending_projections()) == 1
    assert ledger.record_candidate(ref, verdict="PROMOTE", reason="better") == "1"
    assert ledger.candidate("replies", "1").verdict == "PROMOTE"
    assert len(ledger.pending_projections()) == 2


def test_a_verdict_on_other_evidence_is_sent_and_a_repeated_one_is_not(kit, ledger):
    def judge(run_id, gates, *, bundle="served"):
        ref = kit.candidate_ref(ledger.root, 1)
        ref = ref.model_copy(
            update={"run_id": run_id, "bundle": ref.bundle.model_copy(update={"digest": bundle})},
        )
        return ledger.record_candidate(ref, verdict="HOLD", reason="few items", evidence={"gates": gates})

    assert [judge("monday", "strict"), judge("monday again", "strict"), judge("tuesday", "loose")] == ["1", "1", "1"]
    assert ledger.judging_runs("replies", "1") == ("monday", "tuesday")
    assert [one.payload["run_id"] for one in ledger.pending_projections()] == ["monday", "tuesday"]
    assert judge("monday", "strict") == "1"  # resumed after the other: the newest again
    assert ledger.judging_runs("replies", "1") == ("tuesday", "monday")
    assert judge("wednesday", "loose", bundle="the same weights, decoded otherwise") == "2"


def test_versions_are_counted_per_name(kit, ledger):
    def record(number, name):
        ref = kit.candidate_ref(ledger.root, number, name=name)
        return ledger.record_candidate(ref, verdict="BLOCK", reason="worse")

    assert [record(1, "a"), record(2, "a"), record(1, "b"), record(3, "a")] == ["1", "2", "1", "3"]
    assert [row.ref.version for row in ledger.candidates("a")] == ["3", "2", "1"]


def test_a_promotion_against_an_outdated_champion_is_refused(kit, ledger, promote):
    promote(1, None)
    promote(2, "1")
    with pytest.raises(GateError, match=r"TG0620.*champion moved from v1 to v2 since this evaluation") as caught:
        promote(3, "1")
    assert caught.value.exit_code == 9
    with pytest.raises(GateError, match="champion moved from none to v2"):
        promote(3, None)
    assert ledger.champion("replies").version == "2"
    assert len(ledger.history("replies")) == 2


def test_promoting_the_champion_again_changes_nothing(ledger, promote):
    promote(1, None)
    promote(2, "1")
    before = ledger.history(), ledger.pending_projections(), ledger.champion("replies")
    promote(2, "1")
    assert (ledger.history(), ledger.pending_projections(), ledger.champion("replies")) == before


@pytest.mark.parametrize("verdict", ["HOLD", "BLOCK", "ERROR"])
def test_only_the_verdict_promote_is_promoted(kit, ledger, verdict):
    version = ledger.record_candidate(kit.candidate_ref(ledger.root, 1), verdict=verdict, reason="x")
    for candidate in (version, "7"):
        with pytest.raises(GateError, match="TG0621"):
            ledger.promote("replies", expected=None, version=candidate, verdict=RunVerdict("r", "x"))
    assert ledger.champion("replies") is None
    assert ledger.history() == ()


def test_a_later_verdict_does_not_change_the_champions_own(kit, ledger, promote):
    promote(1, None)
    before = ledger.champion("replies")
    other = kit.candidate_ref(ledger.root, 1).model_copy(update={"verdict_digest": "another", "run_id": "another"})
    ledger.record_candidate(other, verdict="BLOCK", reason="worse now")
    assert ledger.champion("replies") == before
    assert ledger.candidate("replies", "1").verdict == "BLOCK"


def test_a_rollback_restores_the_previous_champion_and_needs_a_reason(ledger, promote):
    promote(1, None)
    promote(2, "1")
    with pytest.raises(ConfigError, match="TG0139"):
        ledger.rollback("replies", reason=" ")
    assert ledger.previous("replies") == "1"
    restored = ledger.rollback("replies", reason="customers complain", actor="ada")
    assert restored.version == "1"
    assert restored.verdict_digest == "verdict-1"
    event = ledger.history("replies")[-1]
    assert (event.action, event.from_version, event.to_version) == ("rollback", "2", "1")
    assert (event.reason, event.actor) == ("customers complain", "ada")
    assert ledger.previous("replies") is None
    assert ledger.pending_projections()[-1].payload == {
        "name": "replies", "version": "1", "previous": "2", "run_id": "",
    }  # fmt: skip


def test_rollbacks_go_back_one_by_one_to_the_first_champion(ledger, promote):
    for number in (1, 2, 3):
        promote(number, str(number - 1) if number > 1 else None)
    assert ledger.rollback("replies", reason="r").version == "2"
    assert ledger.rollback("replies", reason="r").version == "1"
    with pytest.raises(ConfigError, match="v1 is the first champion"):
        ledger.rollback("replies", reason="r")
    assert ledger.rollback("replies", reason="r", to="3").version == "3"


def test_a_rollback_to_a_version_that_was_never_champion_is_refused_with_the_choices(kit, ledger, promote):
    with pytest.raises(ConfigError, match=r"TG0159.*has no champion"):
        ledger.rollback("replies", reason="r")
    promote(1, None)
    promote(2, "1")
    ledger.record_candidate(kit.candidate_ref(ledger.root, 3), verdict="HOLD", reason="few items")
    with pytest.raises(ConfigError, match=r"TG0159.*v3 has never been champion; earlier champions: v1"):
        ledger.rollback("replies", reason="r", to="3")
    with pytest.raises(ConfigError, match="v2 is champion already"):
        ledger.rollback("replies", reason="r", to="2")


def test_a_repeated_run_does_not_undo_a_rollback(kit, ledger, promote):
    promote(1, None)
    promote(2, "1")
    ledger.rollback("replies", reason="customers complain")
    promote(2, "1")
    assert ledger.champion("replies").version == "1"
    waiting = ledger.history("replies")[-1]
    assert (waiting.action, waiting.to_version) == ("wait", "2")
    assert "v2 was rolled back (customers complain)" in waiting.reason
    promote(3, "1")
    assert ledger.rollback("replies", reason="r").version == "1"
    assert ledger.rollback("replies", reason="a second look", to="2").version == "2"


def tamper(ledger, *statements):
    if isinstance(ledger.kept, LedgerPostgres):
        with ledger.kept.write() as db:  # past what a ledger notes of its own writes
            for statement in ("SET session_replication_role TO replica", *statements):
                db.execute(statement)
        return
    with closing(sqlite3.connect(ledger.path)) as db, db:
        for statement in (
            "DROP TRIGGER champion_events_no_update",
            "DROP TRIGGER champion_events_no_delete",
            *statements,
        ):
            db.execute(statement)


@pytest.mark.parametrize(
    ("row", "statements"),
    [
        ("2 of champion_events", ["UPDATE champion_events SET reason = 'nothing to see' WHERE seq = 2"]),
        ("3 of champion_events", ["UPDATE champion_events SET actor = 'someone else' WHERE seq = 3"]),
        ("1 of champion_events", ["UPDATE champion_events SET verdict = '' WHERE seq = 1"]),
        ("2 of champion_events", ["UPDATE champion_events SET bundle_digest = 'another' WHERE seq = 2"]),
        ("2 of champion_events", ["DELETE FROM champion_events WHERE seq = 2"]),
        ("3 of champion_events", ["DELETE FROM champion_events WHERE seq = 3"]),
        ("replies of champions", ["DELETE FROM champion_events WHERE seq = 3", "UPDATE champions SET version = '2'"]),
        (
            "3 of champion_events",
            ["UPDATE champion_events SET seq = 13 WHERE seq = 3", "UPDATE champion_events SET seq = 3 WHERE seq = 2"],
        ),
        ("replies of champions", ["UPDATE champions SET version = '1'"]),
        ("replies of champions", ["DELETE FROM champions"]),
    ],
)
def test_tampering_with_the_history_is_found_and_stops_promotions(ledger, promote, row, statements):
    for number in (1, 2, 3):
        promote(number, str(number - 1) if number > 1 else None)
    assert len(ledger.history()) == 3
    tamper(ledger, *statements)
    with ledger.kept.read() as db, pytest.raises(StorageError, match="TG0580") as caught:
        checked_events(db)
    assert f"row {row} " in caught.value.message
    another = Ledger(ledger.root, getattr(ledger.kept, "url", None))  # on Postgres, `ledger` looks once in a minute
    for read in (ledger.check, another.history, another.champions):
        with pytest.raises(StorageError, match="TG0580"):
            read()
    with pytest.raises(StorageError, match="TG0580"):
        promote(4, "3")


def test_events_cannot_be_changed_with_ordinary_sql(ledger, promote):
    promote(1, None)
    for statement in ("UPDATE champion_events SET reason = 'x'", "DELETE FROM champion_events"):
        with pytest.raises(INTEGRITY, match="append-only"), ledger.write() as db:
            db.execute(statement)


def test_projections_are_pending_until_they_are_done(ledger, promote):
    promote(1, None)
    first, second = ledger.pending_projections()
    assert (first.kind, second.kind) == ("candidate", "champion")
    ledger.mark_projected(first.id)
    assert ledger.pending_projections() == (second,)
    ledger.set_mlflow_version("replies", "1", "17")
    assert ledger.candidate("replies", "1").mlflow_version == "17"


def test_a_moved_home_keeps_its_champion(kit, ledger, promote, tmp_path):
    promote(1, None)
    moved = tmp_path / "elsewhere"
    if ledger.root.exists():
        shutil.move(ledger.root, moved)
    champion = Ledger(moved, getattr(ledger.kept, "url", None)).champion("replies")
    assert champion.trained.root == kit.candidate_ref(moved, 1).trained.root
    assert champion.model.root.is_relative_to(moved)
