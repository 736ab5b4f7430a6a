"""Every candidate is compared with the champion, or before the first one with a baseline; or it is UNCOMPARED."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.artifacts import GateDecision, Scores
from tasks.assess.gate import GateContext, JudgedArms, decide
from tests.support.specs import pipeline_spec

FINISHED = {"metric": "finished", "value_threshold": 0.0}
"""The whole of a gate that once promoted whatever answered."""
NO_WORSE = {"metric": "exact", "change_threshold": {"mode": "no_worse", "margin": 0.05}}
Means = Mapping[str, Sequence[float]]
Judge = Callable[..., GateDecision]


@pytest.fixture
def judge(make_scores: Callable[..., Scores], new_folder: Callable[[], Path]) -> Judge:
    """Decide with the gates of a pipeline, as a run does, on arms given as metric -> values."""

    def run(gates: dict[str, Any], candidate: Means, champion: Means | None, zero_shot: Means | None = None) -> Any:
        spec = pipeline_spec(gates={"contamination": None, "round_trip": None, "min_items": 1, **gates})
        return decide(
            judged=JudgedArms(
                candidate=make_scores("tuned", candidate),
                champion=None if champion is None else make_scores("champion", champion),
                baselines=() if zero_shot is None else (make_scores("zero_shot", zero_shot),),
            ),
            gates=spec.judged_gates,
            context=GateContext(champion_version=champion and "3", anchor_version=champion and "3"),
            out=new_folder(),
        )

    return run


def losses(mean: float, n_items: int) -> dict[str, list[float]]:
    noise = np.random.default_rng(int(100 * mean)).normal(0.0, 0.3, n_items)
    return {"finished": [1.0] * n_items, "heldout_loss": (mean + noise).tolist()}


@pytest.mark.parametrize("n_items", [8, 40, 400])
def test_a_regression_that_meets_every_threshold_is_not_promoted(n_items: int, judge: Judge) -> None:
    decision = judge({"rules": [FINISHED]}, losses(4.96, n_items), losses(3.52, n_items))
    assert decision.verdict == ("BLOCK" if n_items == 400 else "HOLD")  # under 320 items no mean is bounded
    met, compared = decision.findings
    assert met.verdict == "PROMOTE"
    assert compared.rule == (
        "heldout_loss is better than champion (version 3), and at most 0.05 worse at the confidence (gates.compare)"
    )
    assert ("only a better candidate can pass" if n_items == 400 else "needs 320, whatever") in compared.reason


def test_before_the_first_champion_the_base_model_is_the_reference(judge: Judge) -> None:
    worse = judge({"rules": [FINISHED]}, losses(4.96, 400), None, losses(3.52, 400))
    assert worse.verdict == "BLOCK"
    assert "improves on best_baseline (zero_shot), as there is no champion (gates.compare)" in worse.findings[1].rule
    assert judge({"rules": [FINISHED]}, losses(3.0, 400), None, losses(3.52, 400)).verdict == "PROMOTE"
    assert judge({"rules": [FINISHED]}, losses(3.0, 400), None).verdict == "ERROR"  # nothing to compare with


@pytest.mark.parametrize(
    ("rules", "candidate", "champion", "reason"),
    [
        # A loss of 40 items cannot be bounded: that is no proof of harm, and none of being as good.
        ([FINISHED], losses(3.0, 40), losses(3.52, 40), "needs 320, whatever gates.min_items is; 280 more are needed"),
        # All 10 items speak for the candidate, and the user's own min_items is 1.
        (
            [{"metric": "exact", "value_threshold": 0.5}], {"exact": [1.0] * 10}, {"exact": [0.0] * 10},
            "has 10 items and the comparison by gates.compare needs 50, whatever gates.min_items is; 40 more are",
        ),
        ([FINISHED], losses(3.5, 400), losses(3.5, 400), "the scores are equal on every item"),
    ],
)  # fmt: skip
def test_what_is_not_shown_to_be_as_good_is_held(
    rules: list[Any], candidate: Means, champion: Means, reason: str, judge: Judge
) -> None:
    decision = judge({"rules": rules}, candidate, champion)
    assert decision.verdict == "HOLD"
    assert reason in decision.reason


def test_a_candidate_that_is_as_good_is_promoted_and_nothing_is_compared_twice(judge: Judge) -> None:
    better, worse = {"exact": [1.0] * 80 + [0.0] * 20}, {"exact": [1.0] * 60 + [0.0] * 40}
    limit = {"metric": "exact", "value_threshold": 0.5}
    decision = judge({"rules": [limit]}, better, worse)
    assert (decision.verdict, len(decision.findings)) == ("PROMOTE", 2)
    best_baseline = {"metric": "exact", "change_threshold": {"against": "best_baseline"}}
    decision = judge({"rules": [best_baseline]}, better, None, worse)
    assert (decision.verdict, len(decision.findings)) == ("PROMOTE", 1)


@pytest.mark.parametrize(
    ("gained", "lost", "verdict"), [(0, 0, "PROMOTE"), (3, 5, "PROMOTE"), (0, 16, "HOLD"), (0, 60, "BLOCK")]
)
def test_no_worse_is_met_by_an_equal_candidate_and_violated_beyond_its_margin(
    gained: int, lost: int, verdict: str, judge: Judge
) -> None:
    rest = 400 - gained - lost
    candidate = {"exact": [1.0] * gained + [0.0] * lost + [1.0] * rest}
    reference = {"exact": [0.0] * gained + [1.0] * lost + [1.0] * rest}
    assert judge({"rules": [NO_WORSE]}, candidate, reference).verdict == verdict
    assert judge({"rules": [NO_WORSE]}, candidate, None, reference).verdict == verdict


@pytest.mark.parametrize(
    ("metric", "worst"), [("exact", [0.0] * 400), ("exact", [1.0] + [0.0] * 399), ("chrf", [0.0] * 400)]
)
def test_no_worse_than_a_model_that_fails_on_nearly_every_item_is_no_comparison(
    metric: str, worst: list[float], judge: Judge
) -> None:
    rule = {"metric": metric, "change_threshold": {"mode": "no_worse", "margin": 0.05}}
    champion = {metric: [0.0] * 390 + [1.0] * 10}
    for reference in ({metric: worst}, champion):
        for decision in (judge({"rules": [rule]}, {metric: worst}, reference), judge(
            {"rules": [rule]}, {metric: worst}, None, reference
        )):  # fmt: skip
            assert decision.verdict != "PROMOTE"
            assert "even a mean of 0 would pass, so this compares nothing" in decision.reason
    # What is clearly better is met, and so is an equal one where a larger loss would have shown.
    right, wrong, some = [1.0] * 400, [0.0] * 400, [1.0] * 50 + [0.0] * 350
    for candidate, reference in ((right, wrong), (some, some)):
        assert judge({"rules": [NO_WORSE]}, {"exact": candidate}, {"exact": reference}).verdict == "PROMOTE"


@pytest.mark.parametrize("loose", [
    {"metric": "heldout_loss", "change_threshold": {"mode": "no_worse", "margin": 100}},
    {"metric": "finished", "change_threshold": {"mode": "no_worse", "margin": 0.05}},
])  # fmt: skip
def test_a_loose_rule_against_the_champion_promotes_no_regression(loose: dict[str, Any], judge: Judge) -> None:
    decision = judge({"rules": [loose]}, losses(4.96, 400), losses(3.52, 400))
    assert [finding.verdict for finding in decision.findings] == ["PROMOTE", "BLOCK"]


def test_before_the_first_champion_a_loose_rule_is_the_comparison_that_would_be_added(judge: Judge) -> None:
    better, worse = {"exact": [1.0] * 80 + [0.0] * 20}, {"exact": [1.0] * 60 + [0.0] * 40}
    loose = {"metric": "exact", "change_threshold": {"mode": "refresh", "margin": 0.3}}
    assert len(judge({"rules": [loose]}, better, None, worse).findings) == 1
    assert len(judge({"rules": [loose]}, better, worse).findings) == 2
    for other in ({"mode": "no_worse", "margin": 0.3}, {"against": "best_baseline", "mode": "refresh", "margin": 0.3}):
        assert len(judge({"rules": [{**loose, "change_threshold": other}]}, better, None, worse).findings) == 2


def test_without_a_comparison_no_verdict_is_better_than_uncompared(judge: Judge) -> None:
    off = {"rules": [FINISHED, {"metric": "finished", "value_threshold": 0.5}], "compare": {"off": "a pilot"}}
    decision = judge(off, losses(4.96, 40), losses(3.52, 40))
    assert decision.verdict == "UNCOMPARED"
    assert decision.reason == (
        "All 2 rules are met, and the candidate is not compared with the champion (gates.compare is off: a pilot); "
        "`tunegate model promote --accept-uncompared` makes it champion."
    )
    assert "| UNCOMPARED | the candidate is compared with the champion |" in (decision.root / "decision.md").read_text()
    failing = judge({**off, "rules": [{"metric": "finished", "value_threshold": 0.5}]}, {"finished": [0.0] * 40}, None)
    assert failing.verdict == "BLOCK"
