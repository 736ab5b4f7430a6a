"""Rules that cannot decide are named before anything is trained."""

from typing import Any

import pytest

from schemas.metrics import traits_by_name
from tasks.assess.limits import gate_warnings
from tests.support.specs import pipeline_spec

CHAMPION = {"metric": "exact", "change_threshold": {}}


def warnings(rules: list[dict[str, Any]], n_items: int = 400, **gates: Any) -> list[str]:
    metrics = [{"uses": "pii"}, {"uses": "bleu"}]
    spec = pipeline_spec(evaluate={"metrics": metrics}, gates={"rules": [*rules, CHAMPION], **gates})
    return gate_warnings(spec.judged_gates, traits=traits_by_name(spec.evaluate.traits()), n_items=n_items)


@pytest.mark.parametrize(
    ("rule", "n_items", "warning"),
    [
        ({"metric": "exact", "value_threshold": 1.5}, 400, "(exact at least 1.5) cannot be met: exact is between 0"),
        ({"metric": "exact", "value_threshold": 1.0}, 400, "and a confidence bound never reaches 1"),
        ({"metric": "bleu", "value_threshold": 30}, 400, "cannot be met: bleu is between 0 and 1"),
        ({"metric": "heldout_loss", "value_threshold": -1}, 400, "cannot be met: heldout_loss is at least 0"),
        ({"metric": "pii", "value_threshold": 0.0}, 400, "(pii at most 0) cannot be met: pii is between 0 and 1, and"),
        ({"metric": "finished", "value_threshold": 0.0}, 400, "(finished at least 0) is met by every answer"),
        ({"metric": "pii", "value_threshold": 1.0}, 400, "(pii at most 1) is met by every answer"),
        ({"metric": "format", "value_threshold": 0.98}, 96, "even if all answers are right; it takes 149"),
        ({"metric": "pii", "value_threshold": 0.01}, 96, "even if all answers are right; it takes 299"),
        ({"metric": "chrf", "change_threshold": {}}, 96, "cannot be met with 96 items: bounding chrf needs 320"),
        ({"metric": "format", "value_threshold": 0.01}, 60, "cannot be violated with 60 items, however bad"),
        (
            {"metric": "exact", "change_threshold": {"mode": "no_worse", "margin": 1.0}}, 400,
            "tolerates any loss, since exact is between 0 and 1",
        ),
        (
            {"metric": "exact", "change_threshold": {"mode": "refresh", "margin": 0.05, "min_gain": 2}}, 400,
            "cannot be met: exact is between 0 and 1, and its min_gain is 2",
        ),
        (
            {"metric": "exact", "value_threshold": 0.5, "hard_limit": 1.5}, 400,
            "(exact at least 0.5) is always BLOCK, since exact is between 0 and 1 and its hard_limit is 1.5",
        ),
        ({"metric": "pii", "value_threshold": 0.5, "hard_limit": -0.1}, 400, "is always BLOCK, since pii is between"),
        (CHAMPION, 400, "gates.rules[1] is the same test as gates.rules[0]"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_decide_is_named(rule: dict[str, Any], n_items: int, warning: str) -> None:
    [found] = warnings([rule], n_items)
    assert warning in found


def test_rules_are_compared_by_the_values_they_have_by_default() -> None:
    change = {"mode": "refresh", "margin": 0.05}
    stated = {"metric": "exact", "change_threshold": {**change, "against": "champion"}}
    [found] = warnings([{"metric": "exact", "change_threshold": change}, stated])
    assert found.startswith("gates.rules[1] is the same test as gates.rules[0]")
    other = {"metric": "exact", "change_threshold": {**change, "min_gain": 0.02}}
    assert warnings([stated, other]) == []


def test_few_items_many_looks_and_what_is_left_out_are_named() -> None:
    assert warnings([{"metric": "exact", "value_threshold": 0.5}, {"metric": "finished", "value_threshold": 0.9}]) == []
    assert warnings([], 2, min_items=1) == [
        "gates.rules[0] (exact improves on champion) cannot be met at 95 % confidence with 2 items, even if the "
        "candidate is better on all of them"
    ]
    assert warnings([], 40) == ["gates.min_items is 50, and there are at most 40 items: no rule can be met"]
    spent = {"looks": {"max": 3}, "reuse": {"budget": 100, "spend": "split"}}
    assert warnings([{"metric": "chrf", "change_threshold": {}}], **spent) == []
    assert "cannot be met at 99.9507 % confidence with 10 items" in warnings([], 10, min_items=1, **spent)[0]


@pytest.mark.parametrize(
    ("gates", "warning"),
    [
        ({"confidence": 0.6}, "gates.confidence is 0.6: up to 40 % of the candidates at a limit are promoted"),
        ({"contamination": None}, "gates.contamination is null: a model that has learned the held-out answers looks"),
    ],
)
def test_a_gate_that_lets_a_worse_model_pass_is_named(gates: dict[str, Any], warning: str) -> None:
    [found] = warnings([], **gates)
    assert warning in found


def test_a_comparison_that_a_worse_model_passes_within_its_margin_is_named() -> None:
    def found(*rules: dict[str, Any]) -> list[str]:
        spec = pipeline_spec(gates={"rules": rules})
        return gate_warnings(spec.judged_gates, traits=traits_by_name(spec.evaluate.traits()), n_items=400)

    no_worse = {"metric": "exact", "change_threshold": {"mode": "no_worse", "margin": 0.05}}
    [warning] = found(no_worse)
    assert "by mode no_worse alone, which also promotes a model that is shown to be worse" in warning
    assert found(no_worse, CHAMPION) == []


def test_a_comparison_that_judges_no_written_answer_is_named() -> None:
    def found(*rules: dict[str, Any], **gates: Any) -> list[str]:
        spec = pipeline_spec(gates={"rules": rules, **gates})
        return gate_warnings(spec.judged_gates, traits=traits_by_name(spec.evaluate.traits()), n_items=400)

    by_loss = "gates.compare: heldout_loss alone compares with the champion; it is that of the reference answers"
    finished, loss = {"metric": "finished", "value_threshold": 0.9}, {"metric": "heldout_loss", "change_threshold": {}}
    for rules in ([finished], [loss], [finished, loss]):
        [warning] = found(*rules)
        assert warning.startswith(by_loss)
    assert found(loss, compare={"metric": "chrf"}) == found(loss, CHAMPION) == []


@pytest.mark.parametrize(
    ("anchor", "place"), [(None, "gates.anchor is null"), ({"margin": 0.5}, "gates.anchor.margin is 0.5")]
)
def test_a_champion_that_may_drift_is_named(anchor: dict[str, float] | None, place: str) -> None:
    def found(mode: str, margin: float, anchor: Any) -> list[str]:
        change = {"mode": mode} | ({"margin": margin} if margin else {})
        rules = [{"metric": "exact", "change_threshold": change}]
        spec = pipeline_spec(gates={"rules": rules, "anchor": anchor})
        return gate_warnings(spec.judged_gates, traits=traits_by_name(spec.evaluate.traits()), n_items=400)

    drifts = f"{place}: each champion may lose a margin against the one before, and their sum is a worse model"
    assert found("refresh", 0.05, anchor) == [drifts]
    assert drifts in found("no_worse", 0.05, anchor)
    assert drifts in found("refresh", 0.5, anchor), "gates.compare adds one that may drift as well"
    assert found("improve", 0, anchor) == [], "each champion is shown to be better"
    assert found("refresh", 0.05, {"margin": 0.05}) == []


def test_a_comparison_that_is_off_is_named() -> None:
    gates = {"rules": [{**CHAMPION, "change_threshold": {"against": "best_baseline"}}], "compare": {"off": "a pilot"}}
    spec = pipeline_spec(gates=gates)
    warning = "gates.compare is off, so no verdict is better than UNCOMPARED: a pilot"
    assert gate_warnings(spec.judged_gates, traits=traits_by_name(spec.evaluate.traits()), n_items=400) == [warning]


def test_a_limit_of_seconds_with_too_few_timed_items_is_named() -> None:
    shown = "gates.latency.p95_ratio_max is HOLD with 16 items wherever it decides"
    few, enough, reported = (
        [each for each in warnings([], latency=latency) if "latency" in each]
        for latency in ({"p95_ratio_max": 1.5, "n_prompts": 16}, {"p95_ratio_max": 1.5}, {"n_prompts": 16})
    )
    assert (len(few), enough, reported) == (1, [], [])
    assert few[0].startswith(shown)
    assert few[0].endswith("it takes 50")
