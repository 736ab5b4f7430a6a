"""What a run prints about its verdict."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.run.console import print_decision
from schemas.artifacts import GateDecision
from schemas.verdicts import Finding


def finding(rule: str, **fields: Any) -> Finding:
    known = {"metric": "exact", "verdict": "HOLD", "n_items": 40, "candidate": 0.5, "method": "tango"}
    return Finding.model_validate({"rule": rule, **known, **fields})


def test_each_reason_is_printed_once_with_the_rules_that_it_is_for() -> None:
    reason = "the held-out set has 40 items and gates.min_items is 50; 10 more are needed."
    findings = (
        finding("exact improves on few_shot", reason=reason),
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
    ]
