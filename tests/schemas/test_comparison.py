"""A gate without a comparison with the champion gets one, unless it says why not."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.pipeline import PipelineSpec
from tests.support.specs import pipeline_spec


def build(rules: list[dict[str, Any]], compare: Any = None, **evaluate: Any) -> PipelineSpec:
    return pipeline_spec(gates={"rules": rules, **({} if compare is None else {"compare": compare})}, evaluate=evaluate)


def limit(metric: str) -> dict[str, Any]:
    return {"metric": metric, "value_threshold": 0.5}


def against_champion(metric: str, mode: str, margin: float = 0.0) -> dict[str, Any]:
    return {"metric": metric, "change_threshold": {"mode": mode, "margin": margin}}


ENDPOINT = {"base_url": "http://127.0.0.1:1/v1", "model": "big", "privacy": "local"}
OWN = [{"uses": "sql", "name": "tone", "select": "SELECT 1", "continuous": True}, {"uses": "bleu"}]


@pytest.mark.parametrize(
    ("rules", "evaluate", "metric"),
    [
        ([limit("finished")], {}, "heldout_loss"),
        ([limit("finished"), limit("exact")], {}, "exact"),
        ([limit("finished")], {"metrics": OWN}, "bleu"),  # the range of `tone` is not known
        ([limit("style_short")], {"style": [{"name": "short", "pattern": "x"}]}, "heldout_loss"),
        ([limit("heldout_loss")], {"arms": ["endpoint"], "endpoint": ENDPOINT}, "chrf"),
        ([{"metric": "exact", "change_threshold": {"against": "best_baseline"}}], {}, "exact"),
        ([{"metric": "chrf", "slice": "product=lamp", "change_threshold": {}}], {}, "chrf"),
        ([{"metric": "finished", "change_threshold": {}}], {}, "heldout_loss"),
        ([against_champion("exact", "no_worse", 0.99)], {}, "exact"),
        ([against_champion("heldout_loss", "no_worse", 100)], {}, "heldout_loss"),
        ([against_champion("bleu", "refresh", 0.06), limit("tone")], {"metrics": OWN}, "bleu"),
        (
            [against_champion("said", "improve")],
            {"metrics": [{"uses": "regex", "name": "said", "pattern": "x"}]},
            "heldout_loss",
        ),
        ([against_champion("exact", "no_worse", 0.99), against_champion("chrf", "refresh", 0.05)], {}, None),
        ([against_champion("tone", "improve")], {"metrics": OWN}, None),
        # Whether 0.05 is much for `tone` is unknown: its values may all be below.
        ([against_champion("tone", "no_worse", 0.05)], {"metrics": OWN}, "bleu"),
        ([against_champion("tone", "refresh", 0.05)], {"metrics": OWN}, "bleu"),
        ([against_champion("heldout_loss", "refresh", 0.05)], {}, None),
    ],
)
def test_the_first_declared_metric_of_quality_is_compared(
    rules: list[dict[str, Any]], evaluate: dict[str, Any], metric: str | None
) -> None:
    """A rule that a worse model can meet does not replace the comparison."""
    spec = build(rules, **evaluate)
    added = spec.judged_gates.added_rule
    assert (added and added.metric) == metric
    assert len(spec.gates.judged_rules) == len(rules)  # what is declared stays as it is
    if added is not None and added.change_threshold is not None:
        assert (added.change_threshold.mode, added.change_threshold.margin) == ("refresh", 0.05)
        assert spec.judged_gates.needs_anchor


def test_the_comparison_can_be_chosen_or_turned_off_with_a_reason() -> None:
    chosen = build([limit("exact")], {"metric": "chrf", "margin": 0.02}).judged_gates.added_rule
    assert chosen is not None
    assert chosen.metric == "chrf"
    assert build([limit("exact")], {"off": "a pilot"}).judged_gates.added_rule is None


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        ("off", "`compare: off` needs a written reason"),
        (False, "`compare: off` needs a written reason"),  # as YAML 1.1 reads it
        ({"off": " "}, "off"),
        ({"off": "a pilot", "metric": "exact"}, "give one of them"),
        ({"margin": 0.2}, "less than or equal to 0.05"),
        ({"metric": "exakt"}, "gate on unknown metric 'exakt'"),
        ({"metric": "finished"}, "finished does not say whether an answer is right"),
    ],
)
def test_a_comparison_is_not_turned_off_by_accident(compare: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build([limit("exact")], compare)


def test_a_comparison_that_is_off_without_a_reason_hides_no_other_fault() -> None:
    with pytest.raises(ValidationError) as caught:
        pipeline_spec(gates={"compare": "off", "confidence": 2, "rules": [{"metric": "exact"}]})
    found = {error["loc"][:2] for error in caught.value.errors()}
    assert found == {("gates", "compare"), ("gates", "confidence"), ("gates", "rules")}


def test_form_may_be_compared_next_to_quality() -> None:
    both = build([against_champion("exact", "refresh", 0.05)], {"metric": "finished"}).judged_gates.added_rule
    assert both is not None
    assert both.metric == "finished"


def test_a_gate_that_compares_cannot_be_off() -> None:
    with pytest.raises(ValidationError, match="a rule compares with the champion"):
        build([{"metric": "exact", "change_threshold": {}}], {"off": "a pilot"})
    loose = build([against_champion("exact", "no_worse", 0.3)], {"off": "a pilot"})
    assert loose.judged_gates.added_rule is None
