"""A champion that learned from a forgotten customer is retrained once, at the next tick."""

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from flows.context.request import RunRequest
from flows.ledger.runs import SeenTickets
from flows.schedule.ticks import forced_retrain, skip_before_curation
from schemas.forget import LearnedVersion
from schemas.schedule import Arrivals, RetrainSpec, ScheduleSpec
from tasks.monitor.conditions import Situation, decide
from tests.support.place import Place
from tests.support.specs import pipeline_spec


def test_a_retrain_is_forced_until_the_next_verdict(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_NOW", "2026-07-01T05:00:00+00:00")
    place.promote(1, after=None)
    seen = SeenTickets("snapshot", "", 3)
    place.ledger.finish_run("run-1", status="DONE", verdict="PROMOTE", exit_code=0, seen=seen)
    schedule = ScheduleSpec(retrain=RetrainSpec(cooldown_days=30))
    spec = pipeline_spec(name="small", register={"name": "replies"}, schedule=schedule)
    session: Any = SimpleNamespace(ledger=place.ledger, spec=spec, run_id="run-1", request=RunRequest(tick="person"))
    monkeypatch.setenv("TUNEGATE_NOW", "2026-07-02T05:00:00+00:00")
    assert forced_retrain(session) == ""
    assert skip_before_curation(session) is not None
    version = LearnedVersion(name="replies", version="1", run_id="run-1", how="directly", n_rows=7)
    place.ledger.mark_versions("abc", [version])
    place.ledger.mark_versions("abc", [version])
    assert len(place.ledger.marked("replies")) == 1
    reason = forced_retrain(session)
    assert "learned directly from 7 examples" in reason
    assert skip_before_curation(session) is None
    no_arrivals = Arrivals(snapshot_id="s", n_curated=3, n_new=0, n_edited=0, n_held_out=0, n_fresh_held_out=0)
    now = datetime.fromisoformat("2026-07-02T05:00:00+00:00")
    decision = decide(schedule.retrain, Situation(now=now, last=now, arrivals=no_arrivals, ordered=reason))
    assert (decision.run, decision.code) == (True, "forgotten")
    monkeypatch.setenv("TUNEGATE_NOW", "2026-07-03T05:00:00+00:00")
    place.record(2, "BLOCK")
    place.ledger.finish_run("run-2", status="DONE", verdict="BLOCK", exit_code=5, seen=seen)
    assert forced_retrain(session) == "", "after one retrain, the usual rules decide"
