"""Decisions of a person about champions: one transaction each, recorded."""

from datetime import UTC, datetime, timedelta

import pytest

from flows.ledger.history import cooldown_of
from flows.ledger.promotions import Waits
from flows.ledger.rows import RunVerdict
from flows.ledger.runs import SeenTickets
from flows.workspace import clock
from schemas.errors import ConfigError, GateError


@pytest.fixture
def record(kit, ledger):
    """Record candidate number N and return its version."""

    def record(number, verdict="PROMOTE"):
        return ledger.record_candidate(kit.candidate_ref(ledger.root, number), verdict=verdict, reason="measured")

    return record


@pytest.fixture
def submit(ledger, record):
    """Record candidate number N with PROMOTE, submit it, and return the ledger's answer."""

    def submit(number, expected, *, run_id="", digest="", approval=False):
        version = record(number)
        verdict = RunVerdict(run_id or f"run-{number}", "better", digest)
        return ledger.promote(
            "replies", expected=expected, version=version, verdict=verdict, waits=Waits(approval=approval)
        )

    return submit


def actions(ledger):
    return [(event.action, event.to_version) for event in ledger.history("replies")]


def test_with_required_approval_a_candidate_waits_for_a_person(ledger, submit):
    waiting = submit(1, None, approval=True)
    assert (waiting.action, waiting.reason) == ("wait", "register.approval is required")
    assert ledger.champion("replies") is None
    assert [event.run_id for event in ledger.waiting("replies")] == ["run-1"]
    assert submit(1, None, approval=True) == waiting  # the same run submits once

    with pytest.raises(ConfigError, match="TG0139"):
        ledger.approve("run-1", actor=" ")
    event = ledger.approve("run-1", actor="ada", reason="read fifty answers")
    assert (event.action, event.actor, event.reason, event.verdict) == (
        "approve",
        "ada",
        "read fifty answers",
        "PROMOTE",
    )
    assert event.bundle_digest == "bundle-1"
    assert ledger.champion("replies").version == "1"
    assert ledger.waiting("replies") == ()
    assert ledger.approve("run-1", actor="ada") == event  # a killed process repeats it
    assert actions(ledger) == [("wait", "1"), ("approve", "1")]
    assert ledger.best_champion("replies") == "1"


def test_a_rejected_verdict_stays_rejected_and_a_new_one_waits_again(ledger, submit):
    submit(1, None, approval=True)
    event = ledger.reject("run-1", actor="ada", reason="tone")
    assert ledger.reject("run-1", actor="bob") == event
    assert ledger.waiting("replies") == ()
    with pytest.raises(GateError, match=r"TG0621.*rejected by ada.*tone"):
        ledger.approve("run-1", actor="bob")
    for approval in (True, False):
        assert submit(1, None, run_id="run-again", approval=approval) == event
    assert submit(1, None, run_id="run-new", digest="other items", approval=True).action == "wait"
    assert ledger.approve("run-new", actor="bob").action == "approve"


def test_approving_a_stale_verdict_is_refused(ledger, record, submit):
    submit(1, None)
    submit(2, "1", approval=True)
    submit(3, "1", approval=True)
    assert [event.to_version for event in ledger.waiting("replies")] == ["2", "3"]
    ledger.approve("run-3", actor="ada")
    assert ledger.waiting("replies") == ()
    with pytest.raises(GateError, match=r"TG0620.*champion moved from v1 to v3 since this evaluation"):
        ledger.approve("run-2", actor="ada")
    assert ledger.champion("replies").version == "3"

    submit(4, "3", approval=True)
    record(4, "BLOCK")
    with pytest.raises(GateError, match=r"TG0621.*has verdict BLOCK"):
        ledger.approve("run-4", actor="ada")
    record(4, "PROMOTE")
    submit(4, "3", run_id="run-4b", digest="other items", approval=True)
    for answer in (ledger.approve, ledger.reject):
        with pytest.raises(GateError, match=r"TG0621.*run-4b"):
            answer("run-4", actor="ada")
    with pytest.raises(GateError, match=r"TG0621.*runs that do: run-4b \(v4 of replies\)"):
        ledger.approve("run-1", actor="ada")


def test_an_old_approval_does_not_undo_a_rollback(ledger, submit):
    submit(1, None)
    submit(2, "1", approval=True)
    ledger.approve("run-2", actor="ada")
    ledger.rollback("replies", reason="customers complain")
    with pytest.raises(GateError, match="TG0621"):
        ledger.approve("run-2", actor="ada")
    assert ledger.champion("replies").version == "1"


def test_a_forced_promotion_skips_the_gate_and_is_recorded(ledger, record, submit):
    submit(1, None)
    record(2, "BLOCK")
    with pytest.raises(ConfigError, match=r"TG0139.*forced promotion needs a reason"):
        ledger.force("replies", expected="1", version="2", reason=" ", actor="ada")
    for unknown in ("7", "2x", "latest"):
        with pytest.raises(GateError, match=r"TG0621.*not in the ledger"):
            ledger.force("replies", expected="1", version=unknown, reason="r", actor="ada")
    event = ledger.force("replies", expected="1", version="2", reason="the held-out set is wrong", actor="ada")
    assert (event.action, event.actor, event.verdict) == ("force", "ada", "BLOCK")
    assert ledger.champion("replies").version == "2"
    repeated = ledger.force("replies", expected="1", version="2", reason="the held-out set is wrong", actor="ada")
    assert repeated == event
    for uncompared in (False, True):
        with pytest.raises(GateError, match=r"TG0621.*v2 of replies is champion already.*force by ada.*nothing was"):
            ledger.force("replies", expected="2", version="2", reason="r", actor="bob", uncompared=uncompared)
    record(3, "HOLD")
    with pytest.raises(GateError, match=r"TG0620.*from v1 to v2"):
        ledger.force("replies", expected="1", version="3", reason="r", actor="bob")
    assert actions(ledger) == [("promote", "1"), ("force", "2")]
    assert ledger.rollback("replies", reason="was wrong after all").version == "1"


def test_a_rollback_starts_a_cooldown_that_only_a_person_ends(ledger, submit, monkeypatch):
    begin = datetime(2026, 3, 1, tzinfo=UTC)
    monkeypatch.setenv(clock.VARIABLE, begin.isoformat())
    submit(1, None)
    submit(2, "1")
    ledger.rollback("replies", reason="customers complain", cooldown_days=1.5)
    assert ledger.history()[-1].until == "2026-03-02T12:00:00+00:00"
    day = timedelta(days=1)
    monkeypatch.setenv(clock.VARIABLE, (begin + day).isoformat())
    waiting = submit(3, "1")
    assert (waiting.action, waiting.reason) == (
        "wait",
        "cooldown until 2026-03-02T12:00:00+00:00 after the rollback from v2",
    )
    assert ledger.held("replies", "3", at=begin + day) == waiting.reason
    assert ledger.held("replies", "3", at=begin + 2 * day) == ""
    monkeypatch.setenv(clock.VARIABLE, (begin + 2 * day).isoformat())
    assert submit(3, "1").action == "promote"
    assert ledger.champion("replies").version == "3"
    ledger.rollback("replies", reason="customers complain again", cooldown_days=1)
    assert submit(4, "1").reason == "cooldown until 2026-03-04T00:00:00+00:00 after the rollback from v3"


def test_a_second_rollback_does_not_end_the_cooldown_of_the_first(ledger, submit, monkeypatch):
    begin, day = datetime(2026, 3, 1, tzinfo=UTC), timedelta(days=1)
    monkeypatch.setenv(clock.VARIABLE, begin.isoformat())
    for version, before in ((1, None), (2, "1"), (3, "2")):
        submit(version, before)
    ledger.rollback("replies", reason="customers complain", cooldown_days=30)
    for version, shorter in ((4, 1), (5, 0)):
        submit(version, "2")
        assert ledger.approve(f"run-{version}", actor="ada").action == "approve"
        ledger.rollback("replies", reason="again", cooldown_days=shorter)
    assert submit(6, "2").reason == "cooldown until 2026-03-31T00:00:00+00:00 after the rollback from v3"
    assert ledger.held("replies", "6", at=begin + 29 * day) != ""
    assert ledger.held("replies", "6", at=begin + 30 * day) == ""
    assert cooldown_of(ledger.history(), "replies", at=begin + 30 * day) is None
    assert cooldown_of(ledger.history(), "others", at=begin) is None


def test_approval_and_force_work_during_a_cooldown(ledger, record, submit):
    submit(1, None)
    submit(2, "1")
    ledger.rollback("replies", reason="r", cooldown_days=365)
    submit(3, "1")
    assert ledger.approve("run-3", actor="ada").action == "approve"
    ledger.rollback("replies", reason="r", cooldown_days=365)
    record(4)
    assert ledger.force("replies", expected="1", version="4", reason="r", actor="ada").action == "force"


def test_only_a_person_brings_back_a_version_that_was_rolled_back(ledger, submit, monkeypatch):
    submit(1, None)
    submit(2, "1")
    ledger.rollback("replies", reason="customers complain")
    monkeypatch.setenv(clock.VARIABLE, (datetime.now(UTC) + timedelta(days=999)).isoformat())
    waiting = submit(2, "1", run_id="run-later")
    assert waiting.action == "wait"
    assert "rolled back (customers complain)" in waiting.reason
    assert ledger.approve("run-later", actor="ada").to_version == "2"
    assert ledger.previous("replies") == "1"


def test_a_candidate_that_was_trained_as_one_rolled_back_waits_for_a_person_or_fresh_items(kit, ledger):
    """The tickets that hid a fault hide it again: a weekly training would bring it back once a cooldown is over."""
    waits = Waits(fresh_items=3)
    ledger.start_run("r", pipeline="demo", model_name="replies", config_json="{}")
    ids = [f"t{number}" for number in range(12)]
    for name, chosen in (("monday", ids[:8]), ("tuesday", ids[2:10]), ("friday", ids[3:11])):
        ledger.record_held_out(name, chosen)

    def submit(number, expected, recipe, items, *, approved=False):
        ref = kit.candidate_ref(ledger.root, number)
        evidence = {"recipe": recipe, "items": items}
        version = ledger.record_candidate(ref, verdict="PROMOTE", reason="better", evidence=evidence)
        verdict = RunVerdict(ref.run_id, "better")
        event = ledger.promote("replies", expected=expected, version=version, verdict=verdict, waits=waits)
        assert bool(ledger.held("replies", version, waits)) == (event.action == "wait")
        return ledger.approve(ref.run_id, actor="ada") if approved else event

    assert submit(1, None, "weekly", "monday").action == "promote"
    assert submit(2, "1", "weekly", "monday").action == "promote", "nothing was rolled back"
    ledger.rollback("replies", reason="invents refunds", actor="ada")
    waiting = submit(3, "1", "weekly", "tuesday")
    assert waiting.action == "wait"
    assert waiting.reason.startswith(
        "v3 was trained in the same way as v2, which was rolled back (invents refunds) at "
    )
    assert waiting.reason.endswith("; 2 of its 8 held-out items did not judge v2, and register.cooldown_items is 3")
    assert submit(4, "1", "weekly", "a set that the ledger does not know").action == "wait"
    assert submit(5, "1", "weekly", "friday").action == "promote"
    ledger.rollback("replies", reason="the same again", actor="ada")
    assert submit(6, "1", "mended", "friday").action == "promote", "trained in another way"
    assert submit(7, "6", "weekly", "friday", approved=True).action == "approve"
    assert submit(8, "7", "weekly", "friday").action == "promote", "a person has accepted one of this kind since"
    assert submit(9, "8", "of unknown items", "not recorded").action == "promote"
    ledger.rollback("replies", reason="once more", actor="ada")
    assert submit(10, "8", "of unknown items", "friday").action == "wait", "they may be the same"


def test_tickets_are_used_by_a_candidate_that_met_its_rules_or_that_a_person_accepted(ledger, record, submit):
    def close(number, verdict):
        run_id = f"run-{number}"
        ledger.start_run(run_id, pipeline="demo", model_name="replies", config_json="{}")
        ledger.finish_run(
            run_id, status="DONE", verdict=verdict, exit_code=0, seen=SeenTickets(f"s{number}", "", number)
        )

    def used():
        found = ledger.used_mark("demo")
        return None if found is None else found.run_id

    close(1, "HOLD")
    assert used() is None
    close(2, "PROMOTE")
    close(3, "BLOCK")
    close(4, "ERROR")
    assert (used(), ledger.mark("demo").run_id) == ("run-2", "run-4")
    close(5, "UNCOMPARED")
    assert used() == "run-5"
    submit(6, None, approval=True)
    close(6, "HOLD")  # earned PROMOTE, and waits
    assert used() == "run-6"
    ledger.reject("run-6", actor="ada")
    assert used() == "run-5"
    version = record(7, "HOLD")
    close(7, "HOLD")
    ledger.force("replies", expected=None, version=version, reason="urgent", actor="ada")
    assert used() == "run-7"
    assert ledger.used_mark("another") is None


def test_an_uncompared_candidate_becomes_champion_only_if_a_person_accepts_that(ledger, submit, record):
    submit(1, None)
    version = record(2, "UNCOMPARED")
    with pytest.raises(GateError, match="not compared with the champion"):
        ledger.force("replies", expected="1", version=version, reason="why", actor="ada")
    earned = record(3)
    with pytest.raises(GateError, match="has verdict PROMOTE, not UNCOMPARED"):
        ledger.force("replies", expected="1", version=earned, reason="why", actor="ada", uncompared=True)
    event = ledger.force("replies", expected="1", version=version, reason="why", actor="ada", uncompared=True)
    assert (event.action, event.verdict, event.actor, event.reason) == ("force", "UNCOMPARED", "ada", "why")


def test_a_decision_that_is_dated_before_its_predecessor_says_so(ledger, submit, record, monkeypatch):
    monkeypatch.setenv(clock.VARIABLE, "2026-06-08T05:00:00Z")
    submit(1, None)
    monkeypatch.setenv(clock.VARIABLE, "2020-01-01T00:00:00Z")
    early = submit(2, "1")
    assert (early.action, early.at) == ("promote", "2020-01-01T00:00:00+00:00")
    assert early.note == (
        "dated before event 1 (2026-06-08T05:00:00+00:00), which it follows: clocks differ, or one was set back"
    )
    monkeypatch.setenv(clock.VARIABLE, "2019-12-31T23:59:58Z")  # of another host
    assert submit(3, "2").note == ""  # its predecessor is of the same day
    monkeypatch.setenv(clock.VARIABLE, "2019-01-01T00:00:00Z")
    ledger.rollback("replies", reason="r")
    ledger.force("replies", expected="2", version=record(4, "BLOCK"), reason="r", actor="ada")
    assert [event.note.partition(" (")[0] for event in ledger.history()] == [
        "", "dated before event 1", "", "dated before event 3", ""
    ]  # fmt: skip
