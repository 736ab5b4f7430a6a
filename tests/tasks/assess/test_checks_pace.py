"""Latency and cost at the gate: a limit decides at a confidence, a CPU only reports, nothing unmeasured passes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import tasks.assess.checks  # noqa: F401  registers them
from schemas.artifacts import CheckEvidence
from schemas.checks import CostSpec, LatencySpec
from schemas.errors import GateError
from schemas.gates import GateRule, GatesSpec
from tasks.assess.check import check_findings
from tasks.assess.economics import find_gpu
from tasks.assess.pace import EXCEEDED, KEPT, NOT_SHOWN, least_timed, mean_shown, percentile_shown

RULE = GateRule(metric="exact", value_threshold=0.5)
ONLY: dict[str, Any] = {"contamination": None, "round_trip": None}


def judge(
    latency: LatencySpec, cost: CostSpec | None = None, **values: float | None
) -> list[tuple[str, str, bool, str]]:
    given = {"cuda": 1.0, "against_champion": 1.0, "latency_shown": None, "cost_shown": None} | values
    evidence = CheckEvidence(root=Path("gone"), check="latency", n_items=16, values=given)
    gates = GatesSpec(**ONLY, rules=(RULE,), latency=latency, cost=cost)
    return [(each.part, each.verdict, each.decides, each.reason) for each in check_findings([evidence], gates)]


@pytest.mark.parametrize(
    ("shown", "verdict", "why"),
    [
        (1.0, "PROMOTE", "to be kept"),
        (0.0, "HOLD", "more items would decide"),
        (-1.0, "BLOCK", "only a faster candidate"),
    ],
)
def test_a_limit_is_met_if_it_is_shown_to_be_kept_and_violated_if_it_is_shown_to_be_exceeded(
    shown: float, verdict: str, why: str
) -> None:
    (found,) = judge(LatencySpec(p95_ratio_max=1.1), latency_shown=shown)
    assert found[:3] == ("latency", verdict, True)
    assert why in found[3]


@pytest.mark.parametrize("shown", [None, float("nan"), 4.0, 0.5])
def test_a_limit_of_which_nothing_is_known_is_an_error(shown: float | None) -> None:
    (found,) = judge(LatencySpec(p95_ratio_max=1.1), latency_shown=shown)
    assert found[:3] == ("latency", "ERROR", True)


def seconds(generator: np.random.Generator, n: int, *, factor: float = 1.0) -> tuple[list[float], list[float]]:
    """Seconds of both models on n items, as alike as answers to one ticket are; the first is slower by the factor."""
    shared = generator.standard_normal(n)
    first, second = (np.exp(0.4 * (0.9 * shared + 0.44 * generator.standard_normal(n))) for _ in range(2))
    return (factor * first).tolist(), second.tolist()


@pytest.mark.parametrize("n", [16, 64, 250])
def test_equal_models_are_not_blocked_and_one_at_the_limit_is_not_passed_by_chance(n: int) -> None:
    generator, runs = np.random.default_rng(n), 400
    equal, limit = (
        [percentile_shown(*seconds(generator, n, factor=factor), ratio_max=1.25, alpha=0.05) for _ in range(runs)]
        for factor in (1.0, 1.25)
    )
    assert equal.count(EXCEEDED) == 0
    assert max(limit.count(KEPT), limit.count(EXCEEDED)) <= 0.07 * runs  # three rounds of 16: 33 to 42 % passed
    if n == 16:
        assert {*equal, *limit} == {NOT_SHOWN}, "16 items have no 95th percentile"
    if n == 250:
        assert equal.count(KEPT) > 0.9 * runs


@pytest.mark.parametrize("alpha", [0.05, 0.04, 0.01, 0.005])
def test_fewer_items_than_the_least_show_nothing(alpha: float) -> None:
    least = least_timed(alpha)
    quick, slow = ([factor + place / 1000 for place in range(least)] for factor in (1.0, 9.0))
    assert percentile_shown(quick, slow, ratio_max=1.25, alpha=alpha) == KEPT
    assert percentile_shown(quick[1:], slow[1:], ratio_max=1.25, alpha=alpha) == NOT_SHOWN


def test_a_mean_is_compared_by_its_bounds_and_not_at_all_on_few_items() -> None:
    values = seconds(np.random.default_rng(1), 200)[0]
    mean = sum(values) / len(values)
    shown = [mean_shown(values, limit=factor * mean, alpha=0.05) for factor in (1.2, 1.0, 0.8)]
    assert shown == [KEPT, NOT_SHOWN, EXCEEDED]
    assert mean_shown(values[:29], limit=9 * mean, alpha=0.05) == NOT_SHOWN


def test_all_items_are_timed_where_a_limit_decides() -> None:
    assert LatencySpec().prompts_of(500, decides=True) == 500
    assert LatencySpec().prompts_of(500, decides=False) == 16
    assert LatencySpec(n_prompts=100).prompts_of(40, decides=True) == 40


def test_a_cpu_reports_unless_it_is_declared_to_judge() -> None:
    assert judge(LatencySpec(p95_ratio_max=1.1), cuda=0.0, latency_shown=-1.0)[0][1:3] == ("BLOCK", False)
    assert judge(LatencySpec(p95_ratio_max=1.1, on_cpu="judge"), cuda=0.0, latency_shown=-1.0)[0][1:3] == (
        "BLOCK",
        True,
    )
    assert judge(LatencySpec())[0][1:3] == ("HOLD", False)


def test_cost_has_a_finding_of_its_own_and_needs_the_seconds_of_latency() -> None:
    found = judge(LatencySpec(), CostSpec(machine="l4", usd_per_1k_max=0.4), cost_shown=-1.0)
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
