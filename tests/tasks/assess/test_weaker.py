"""In what a gate is weaker than another: each loosening is named, and no tightening."""

import copy
from typing import Any

import pytest

from schemas.evaluation import EvaluateSpec
from schemas.gates import GatesSpec
from schemas.metrics import MetricTraits
from tasks.assess.weaker import weaker_than

BASE: dict[str, Any] = {
    "rules": [
        {"metric": "exact", "change_threshold": {"mode": "refresh", "margin": 0.02}},
        {"metric": "exact", "change_threshold": {"against": "best_baseline", "mode": "improve"}},
        {"metric": "format", "value_threshold": 0.95, "hard_limit": 0.9},
        {"metric": "seconds", "value_threshold": 2.0},
    ],
    "min_items": 100,
    "slices": {"by": ["product", "category"], "top_up": 50},
    "latency": {"p95_ratio_max": 1.25},
    "reuse": {"budget": 20},
}
SECONDS = MetricTraits(name="seconds", continuous=True, higher_is_better=False)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The gate with another value at `rules.0.metric`; None removes it from a list or dictionary."""
    gate = copy.deepcopy(BASE)
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
    place: Any = gate
    for step in steps:
        place = place[step] if isinstance(step, int) else place.setdefault(step, {})
    if value is None and isinstance(last, int):
        del place[last]
    else:
        place[last] = value
    return gate


def named(now: dict[str, Any], before: dict[str, Any] = BASE) -> list[str]:
    gates = (GatesSpec.model_validate(each) for each in (before, now))
    return weaker_than(*gates, traits=((SECONDS,), (SECONDS,)))


LOOSER = [
    ("confidence", 0.9, "confidence is 0.9, and was 0.95"),
    ("min_items", 50, "min_items is 50, and was 100"),
    ("rules.0", None, "the rule is gone: exact against champion, mode refresh"),
    ("rules.2", None, "the rule is gone: format limited by 0.95"),
    ("rules.0.change_threshold.margin", 0.03, "margin of exact against champion is 0.03, and was 0.02"),
    ("rules.0.change_threshold.mode", "no_worse", "mode of exact against champion is no_worse, and was refresh"),
    ("rules.0.change_threshold.min_gain", 0.0, "min_gain of exact against champion is 0, and was null"),
    ("rules.2.value_threshold", 0.94, "value_threshold of format is 0.94, and was 0.95"),
    ("rules.2.hard_limit", None, "hard_limit of format is null, and was 0.9"),
    ("rules.3.value_threshold", 2.5, "value_threshold of seconds is 2.5, and was 2"),
    ("slices", None, "no slice is guarded, and product, category were"),
    ("slices.by", ["product"], "slices are not guarded any more: category"),
    ("slices.metric", "format", "slices.metric is format, and was exact"),
    ("slices.top_up", 0, "slices.top_up is 0, and was 50"),
    ("latency", None, "the check is gone: latency"),
    ("latency.p95_ratio_max", 1.5, "latency.p95_ratio_max is 1.5, and was 1.25"),
    ("latency.p95_ratio_max", None, "latency.p95_ratio_max is null, and was 1.25"),
    ("contamination", None, "the check is gone: contamination"),
    ("round_trip.n_prompts", 1, "round_trip.n_prompts is 1, and was 8"),
    ("anchor", None, "the anchor is gone: champions may drift"),
    ("anchor.margin", 0.2, "anchor.margin is 0.2, and was null"),
    ("looks.max", 5, "looks.max is 5, and was 1"),
    ("looks.spend", "equal", "looks.spend is equal, and was obrien_fleming"),
    ("reuse", None, "reuse is null: the same items may judge any number of candidates"),
    ("reuse.budget", 40, "reuse.budget is 40, and was 20"),
    ("compare", {"off": "in a hurry"}, "the comparison with the champion is off: in a hurry"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), LOOSER)
def test_each_loosening_is_named(path: str, value: Any, sentence: str) -> None:
    assert sentence in named(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [(path, value) for path, value, _ in LOOSER if path not in ("looks.spend", "slices.metric", "anchor.margin")],
)
def test_the_same_change_back_is_none(path: str, value: Any) -> None:
    assert named(BASE, changed(path, value)) == []


def test_an_equal_gate_is_not_weaker_and_a_new_rule_makes_none_so() -> None:
    assert named(BASE) == []
    more = {**BASE, "rules": [*BASE["rules"], {"metric": "style", "value_threshold": 0.5}], "confidence": 0.99}
    assert named(more) == []


def test_answers_that_are_scored_otherwise_and_metrics_that_turn_around_are_named() -> None:
    gates = GatesSpec.model_validate(BASE)
    before = EvaluateSpec(fields=r"\[(?P<category>[a-z]+)\]", max_items=400)
    now = EvaluateSpec(fields=r"(?P<category>[a-z]+)", max_items=200)
    turned = SECONDS.model_copy(update={"higher_is_better": True})
    found = weaker_than(gates, gates, evaluate=(before, now), traits=((SECONDS,), (turned,)))
    assert [each.partition(" is ")[0] for each in found] == [
        "evaluate.fields", "evaluate.max_items", "the metric seconds",
    ]  # fmt: skip
    assert weaker_than(gates, gates, evaluate=(before, before.model_copy(update={"max_items": 800}))) == []


ENDPOINT = {"base_url": "http://127.0.0.1:8000/v1", "model": "ft:old"}
INCUMBENT = {"metric": "exact", "change_threshold": {"against": "endpoint", "mode": "no_worse", "margin": 0.02}}


def against(*rules: Any, endpoint: dict[str, Any] = ENDPOINT, arms: tuple[str, ...] = ("zero_shot", "endpoint")) -> Any:
    return GatesSpec.model_validate({"rules": rules or [INCUMBENT]}), EvaluateSpec(arms=arms, endpoint=endpoint)


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (
            against({"metric": "exact", "change_threshold": {}}),
            "the rule is gone: exact against endpoint, mode no_worse",
        ),
        (
            against({"metric": "exact", "change_threshold": {"against": "best_baseline"}}),
            "the rule is gone: exact against endpoint, mode no_worse",
        ),
        (
            against({**INCUMBENT, "change_threshold": {**INCUMBENT["change_threshold"], "margin": 0.04}}),
            "margin of exact against endpoint is 0.04, and was 0.02",
        ),
        (against(endpoint={**ENDPOINT, "model": "tiny"}), "evaluate.endpoint.model is tiny, and was ft:old"),
        (
            against(endpoint={**ENDPOINT, "base_url": "http://127.0.0.1:9/v1"}),
            "evaluate.endpoint.base_url is http://127.0.0.1:9/v1, and was http://127.0.0.1:8000/v1",
        ),
        (against(endpoint={**ENDPOINT, "system": "Say no."}), "evaluate.endpoint.system is Say no., and was null"),
        (against(endpoint={**ENDPOINT, "max_incomplete": 0.1}), "evaluate.endpoint.max_incomplete is 0.1, and was 0"),
    ],
)
def test_a_looser_comparison_with_an_endpoint_or_an_easier_endpoint_is_named(now: Any, sentence: str) -> None:
    gates, evaluate = against()
    assert weaker_than(gates, now[0], evaluate=(evaluate, now[1])) == [sentence]
    stricter = {**INCUMBENT["change_threshold"], "mode": "improve", "margin": 0.0}
    budget = {**ENDPOINT, "budget": {"tokens": 9}, "timeout_s": 3}
    tighter = against({**INCUMBENT, "change_threshold": stricter}, endpoint=budget)
    assert weaker_than(gates, tighter[0], evaluate=(evaluate, tighter[1])) == []


def test_arms_that_candidates_had_to_beat_are_missed() -> None:
    best = {"metric": "exact", "change_threshold": {"against": "best_baseline"}}
    before = against(best)
    gone = against(best, arms=("endpoint",))
    named = weaker_than(before[0], gone[0], evaluate=(before[1], gone[1]))
    assert named == ["the arm zero_shot is gone, which candidates had to beat"]
    replaced = against(best, INCUMBENT)
    assert weaker_than(before[0], replaced[0], evaluate=(before[1], replaced[1])) == [
        "a rule compares with the endpoint, which is no baseline then, and replaces a champion that is missing"
    ]


def test_a_judged_metric_that_is_declared_anew_the_other_way_round_is_named() -> None:
    rule = {"metric": "accuracy", "change_threshold": {"mode": "improve"}}
    gates = GatesSpec.model_validate({"rules": [rule]})
    turned = MetricTraits(name="accuracy", higher_is_better=False)
    assert weaker_than(gates, gates, traits=((), (turned,))) == ["the metric accuracy is declared otherwise"]
    assert weaker_than(gates, gates, traits=((), (SECONDS, MetricTraits(name="accuracy")))) == []


def test_baselines_that_are_easier_to_beat_are_named_where_a_rule_compares_with_them() -> None:
    gates, bare = (GatesSpec.model_validate({**BASE, "rules": BASE["rules"][start:]}) for start in (0, 2))
    before = EvaluateSpec(arms=("zero_shot", "few_shot"), few_shot_examples=4)
    now = EvaluateSpec(arms=("zero_shot", "majority"), few_shot_examples=1)
    assert weaker_than(gates, gates, evaluate=(before, now)) == [
        "the arm few_shot is gone, which candidates had to beat",
        "evaluate.few_shot_examples, of the arms to beat, is another: 4 before, 1 now",
    ]
    assert weaker_than(bare, bare, evaluate=(before, now)) == []
