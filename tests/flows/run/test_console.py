"""What a run prints about its verdict."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from flows.graph.graph import Graph
from flows.run import console
from flows.run.console import Screen, print_decision
from schemas.artifacts import Artifact, GateDecision
from schemas.verdicts import Finding, Passes
from tasks.step import as_step


@as_step("work")
def work(out: Path) -> Artifact:
    """A step that is never run."""
    return Artifact(root=out)


def finding(rule: str, **fields: Any) -> Finding:
    known = {"metric": "exact", "verdict": "HOLD", "n_items": 40, "candidate": 0.5, "method": "tango"}
    return Finding.model_validate({"rule": rule, **known, **fields})


def test_each_reason_is_printed_once_with_the_rules_that_it_is_for() -> None:
    reason = "the held-out set has 40 items and gates.min_items is 50; 10 more are needed."
    passes = Passes(gains=(0.0,), chances=(0.05,), basis="40 items")
    findings = (
        finding("exact improves on few_shot", reason=reason, passes=passes),
        finding("exact improves on few_shot", reason=reason),
        finding("format at least 0.9", metric="format", reason=reason),
        finding("no leak", verdict="PROMOTE", reason="none"),
        finding("no slice is worse", reason="too small.", decides=False),
    )
    decision = GateDecision(
        root=Path("x"), verdict="HOLD", reason="", findings=findings, n_items=40, champion_version=None
    )
    text = io.StringIO()
    print_decision(Console(file=text, width=200), decision)
    reasons = text.getvalue().split("\n\n")[-2].splitlines()
    assert reasons == [
        f"  HOLD    exact improves on few_shot; format at least 0.9: {reason}",
        "  note    no slice is worse: too small.",
        "  This gate passes an equal model in 5 % (40 items).",
    ]


def test_speed_and_time_left_count_from_the_first_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step waits for a minute of preparation, and a resumed training starts at its checkpoint."""
    graph = Graph()
    graph.named("train").add(work)
    train = graph.nodes["train"]
    clock = iter((0.0, 60.0, 80.0))
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    text = io.StringIO()
    screen = Screen(Console(file=text, width=200))
    screen.started(train)
    screen.progressed(train, 40, 100, "steps", {})
    screen.progressed(train, 60, 100, "steps", {})
    assert text.getvalue().splitlines() == [
        "  train                40/100 steps",
        "  train                60/100 steps  1.0 steps/s  ETA 40 s",
    ]
