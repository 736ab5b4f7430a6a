"""The warning that answers have a label which no rule compares with a classifier."""

from typing import Any

import pytest

from schemas.evaluation import EvaluateSpec
from schemas.gates import GateRule, GatesSpec
from schemas.pipeline_rules import classifier_advice
from schemas.training import PromptSpec, TrainSpec

CHANGE: dict[str, Any] = {"change_threshold": {"against": "best_baseline"}}


def advice(metric: str, *, answer: str = "[{category}]\n{reply}", **evaluate: Any) -> list[str]:
    train = TrainSpec(base_model="file:m", prompt=PromptSpec(user="{body}", answer=answer))
    rule = GateRule(metric=metric, **({"value_threshold": 0.9} if metric == "finished" else CHANGE))
    return classifier_advice(train, EvaluateSpec(**evaluate), GatesSpec(rules=(rule,)))


@pytest.mark.parametrize("metric", ["chrf", "finished", "heldout_loss"])
def test_a_label_that_no_rule_compares_is_named_with_the_rule_that_does(metric: str) -> None:
    (sentence,) = advice(metric)
    assert sentence == (
        "answers have {category}, and no rule compares exact or field_category: tfidf, which needs no language model, "
        "may be better at it; add {metric: field_category, change_threshold: {against: best_baseline}} to gates.rules"
    )


def test_what_is_compared_or_not_learned_needs_no_warning() -> None:
    assert advice("exact") == advice("field_category") == []
    assert advice("chrf", answer="{reply}") == []
    assert advice("chrf", routing_field=None) == advice("chrf", arms=["zero_shot"]) == []
