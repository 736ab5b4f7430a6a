"""Codes of the gate: what cannot be compared is refused; the verdict is ERROR, whose reason says the same."""

from collections.abc import Callable

import pytest

from schemas.artifacts import Scores
from schemas.checks import ForgettingSpec
from schemas.errors import GateError
from schemas.gates import GateRule, GatesSpec
from tasks.assess.clusters import Clusters
from tasks.assess.evidence import Arms, ArmScores, find_baselines, line_up
from tasks.assess.forgetting import assess_forgetting
from tasks.assess.questions import assess_rules
from tasks.assess.suite import METRIC

MakeScores = Callable[..., Scores]
SLICED = GateRule(metric="exact", slice="product=lamp", value_threshold=0.5)
RIGHT = [1.0] * 60


def alone(candidate: ArmScores) -> Arms:
    """A candidate without any other arm."""
    return Arms(
        candidate=candidate, champion=None, champion_version=None, anchor=None, anchor_version=None, baselines={}
    )


def test_what_cannot_be_compared_is_refused(make_scores: MakeScores) -> None:
    candidate = ArmScores(make_scores("tuned", {"exact": RIGHT}))
    other = ArmScores(make_scores("champion", {"exact": RIGHT}, first_item=1))
    with pytest.raises(GateError, match="TG0603"):
        line_up(candidate, other, metric="exact", slice_name=None)
    with pytest.raises(GateError, match="TG0605"):
        find_baselines(alone(candidate), metric="exact", items=None)
    with pytest.raises(GateError, match="TG0606"):
        Clusters.read(None, "customer_id")


def test_a_slice_that_was_not_made_is_refused(make_scores: MakeScores) -> None:
    arms = alone(ArmScores(make_scores("tuned", {"exact": RIGHT})))
    (assessed,) = assess_rules(arms, GatesSpec(rules=(SLICED,)), None, alpha=0.05)
    assert assessed.verdict == "ERROR"  # TG0606
    assert "the items were not sliced by product; add it to evaluate.slices" in assessed.reason


def test_a_base_that_knows_nothing_shows_no_loss(make_scores: MakeScores) -> None:
    gates = GatesSpec(rules=(SLICED,), forgetting=ForgettingSpec())
    arms = [make_scores(arm, {METRIC: [0.0] * 60}) for arm in ("tuned", "champion")]
    (assessed,) = assess_forgetting(gates, arms, alpha=0.05)
    assert "below 0.2 it cannot show a loss" in assessed.reason  # TG0610
