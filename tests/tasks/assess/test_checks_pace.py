"""Latency and cost at the gate: a limit decides by rounds, a CPU only reports, and nothing unmeasured passes."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import tasks.assess.checks  # noqa: F401  registers them
from schemas.artifacts import CheckEvidence
from schemas.checks import CostSpec, LatencySpec
from schemas.errors import GateError
from schemas.gates import GateRule, GatesSpec
from tasks.assess.check import check_findings
from tasks.assess.economics import find_gpu

RULE = GateRule(metric="exact", value_threshold=0.5)
ONLY: dict[str, Any] = {"contamination": None, "round_trip": None}


def judge(
    latency: LatencySpec, cost: CostSpec | None = None, **values: float | None
) -> list[tuple[str, str, bool, str]]:
    given = {"rounds": 3.0, "cuda": 1.0, "against_champion": 1.0, "latency_within": None, "cost_within": None} | values
    evidence = CheckEvidence(root=Path("gone"), check="latency", n_items=16, values=given)
    gates = GatesSpec(**ONLY, rules=(RULE,), latency=latency, cost=cost)
    return [(each.part, each.verdict, each.decides, each.reason) for each in check_findings([evidence], gates)]


@pytest.mark.parametrize(("within", "verdict"), [(3.0, "PROMOTE"), (2.0, "HOLD"), (0.0, "BLOCK")])
def test_a_limit_is_met_in_every_round_and_violated_in_all(within: float, verdict: str) -> None:
    (found,) = judge(LatencySpec(p95_ratio_max=1.1), latency_within=within)
    assert found[:3] == ("latency", verdict, True)
    assert f"within the limit in {within:.0f}" in found[3]


@pytest.mark.parametrize("within", [None, float("nan"), 4.0, -1.0])
def test_a_limit_whose_rounds_are_no_count_is_an_error(within: float | None) -> None:
    (found,) = judge(LatencySpec(p95_ratio_max=1.1), latency_within=within)
    assert found[:3] == ("latency", "ERROR", True)


def test_a_cpu_reports_unless_it_is_asked_to_judge() -> None:
    assert judge(LatencySpec(p95_ratio_max=1.1), cuda=0.0, latency_within=0.0)[0][1:3] == ("BLOCK", False)
    assert judge(LatencySpec(p95_ratio_max=1.1, on_cpu="judge"), cuda=0.0, latency_within=0.0)[0][1:3] == (
        "BLOCK",
        True,
    )
    assert judge(LatencySpec())[0][1:3] == ("HOLD", False)


def test_cost_has_a_finding_of_its_own_and_needs_the_seconds_of_latency() -> None:
    found = judge(LatencySpec(), CostSpec(machine="l4", usd_per_1k_max=0.4), cost_within=0.0)
    assert [each[:3] for each in found] == [("latency", "HOLD", False), ("cost", "BLOCK", True)]
    assert judge(LatencySpec(), CostSpec(machine="l4"))[1][1:3] == ("HOLD", False)
    with pytest.raises(ValidationError, match="seconds of `latency`"):
        GatesSpec(**ONLY, rules=(RULE,), cost=CostSpec(machine="l4"))


def test_a_declared_check_without_evidence_is_an_error() -> None:
    gates = GatesSpec(**ONLY, rules=(RULE,), latency=LatencySpec())
    assert [each.verdict for each in check_findings([], gates)] == ["ERROR"]


def test_a_machine_without_a_price_is_refused_with_those_that_have_one() -> None:
    assert find_gpu("l4").usd_per_hour > 0
    with pytest.raises(GateError, match=r"TG0612.*l4"):
        find_gpu("mainframe")
