"""A certificate of the champion that no longer holds is reported by every tick and is a metric."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from flows.context.request import RunRequest
from flows.ledger.rows import RunVerdict
from flows.registry.feedback import feedback_database, routed
from flows.schedule.ticks import record_decision
from flows.views.metrics import exposition
from schemas.schedule import Decision
from tasks.monitor.feedback import FeedbackRules, ingest_feedback
from tests.flows.run.test_notify import Hook, hook
from tests.support.place import Place
from tests.support.specs import pipeline_spec
from tests.tasks.monitor.test_routed import CERTIFICATE

__all__ = ["hook"]
SKIP = Decision(run=False, code="few", reason="no new tickets")
WARNING = "the certificate of version 1 no longer holds: 1 of 5 routed tickets were right, 0.95 of them should be"


def judged(number: int, *, right: bool) -> bytes:
    row = {"ticket_id": f"T-{number}", "version": "1", "outcome": "accepted", "at": "2026-06-08T10:00:00Z"}
    return json.dumps({**row, "action": "route", "right": right}).encode()


def test_a_broken_certificate_of_the_champion_is_reported_at_every_tick_and_is_a_metric(
    place: Place, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.record(1, "PROMOTE", certificate=CERTIFICATE)
    place.ledger.promote("replies", expected=None, version="1", verdict=RunVerdict("run-1", "better"))
    database = feedback_database(place.home, "replies")
    database.parent.mkdir(parents=True)
    noted: list[str] = []
    monkeypatch.setenv("HOOK", hook.url)
    spec = pipeline_spec(name="small", register={"name": "replies"}, notify={"webhook_env": "HOOK"})
    run: Any = SimpleNamespace(
        ledger=place.ledger, spec=spec, settings=place.settings, run_id="run-1", request=RunRequest(tick="person"),
        listeners=SimpleNamespace(noted=noted.append),
    )  # fmt: skip

    def take(*lines: bytes) -> None:
        ingest_feedback(lines, FeedbackRules(frozenset({"1"})), source="file", database=database)

    take(judged(0, right=True))
    assert record_decision(run, SKIP).warnings == ()
    take(*(judged(number, right=False) for number in range(1, 5)))
    assert record_decision(run, SKIP).warnings == (WARNING,)
    assert noted == [WARNING]
    assert [message["text"] for message in hook.messages] == [f"small: {WARNING}"]
    ticks = place.ledger.ticks("small")
    assert sorted(tick.decision.warnings for tick in ticks) == [(), (WARNING,)]
    metrics = exposition(place.settings).decode()
    assert 'tunegate_routed_tickets{name="replies",version="1"} 5.0' in metrics
    assert 'tunegate_routed_right_ratio{name="replies",version="1"} 0.2' in metrics
    [watched] = routed("replies", None, place.settings, place.ledger)
    assert f'tunegate_certificate_evidence{{name="replies",version="1"}} {watched.evidence!r}' in metrics

    place.promote(2, after="1")  # its champion has no certificate: nothing to warn of
    assert record_decision(run, SKIP).warnings == ()
