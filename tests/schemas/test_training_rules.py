"""Settings of `train` that contradict each other, and those that are only worth a word."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.evaluation import EvaluateSpec
from schemas.gates import GatesSpec
from schemas.pipeline_rules import training_advice, unjudged_advice
from schemas.training import AdapterSpec, TrainSpec
from tests.support.specs import conflicts, pipeline_spec


def train(**settings: Any) -> TrainSpec:
    return TrainSpec.model_validate({"base_model": "m"} | settings)


def faults(make: Callable[[], object]) -> dict[tuple[str | int, ...], tuple[str, str | None]]:
    return {fault.at: (fault.message, fault.hint) for fault in conflicts(make)}


@pytest.mark.parametrize(
    ("method", "usual", "odd", "wrong"),
    [("full", (1e-5, 5e-5), (9e-6, 5e-4), (9e-7, 6e-4)), ("lora", (1e-4, 3e-4), (9e-5, 3e-3), (9e-6, 4e-3)),
     ("qlora", (1e-4, 3e-4), (1e-5, 2e-3), (1e-6, 1e-2))],
)  # fmt: skip
def test_a_rate_is_accepted_warned_of_or_refused_by_how_unusual_it_is(
    method: str, usual: tuple[float, ...], odd: tuple[float, ...], wrong: tuple[float, ...]
) -> None:
    for rate in usual:
        assert training_advice(train(method=method, learning_rate=rate)) == []
    for rate in odd:
        (advice,) = training_advice(train(method=method, learning_rate=rate))
        assert advice.startswith(f"train.learning_rate {rate:g} is unusual for method {method}: ")
    for rate in wrong:
        ((message, hint),) = faults(lambda rate=rate: train(method=method, learning_rate=rate)).values()  # type: ignore[misc]
        assert message.endswith("and this is more than 10 times off")
        assert hint == "if it is intended, set allow_unusual_learning_rate: true"
        meant = train(method=method, learning_rate=rate, allow_unusual_learning_rate=True)
        assert training_advice(meant) == []


def test_qlora_without_a_four_bit_load_is_no_qlora() -> None:
    ((message, hint),) = faults(lambda: train(method="qlora", quantization=None)).values()
    assert message == "method qlora needs a 4-bit base, but quantization is null"
    assert "method: lora" in str(hint)
    assert train(method="lora", quantization=None).four_bits() is None
    (advice,) = training_advice(train(method="lora", quantization={"type": "nf4"}))
    assert advice.startswith("train.quantization has no effect with method lora")


def test_layers_are_the_top_ones_a_list_or_a_range() -> None:
    assert AdapterSpec(layers=2).layers_of(30) == AdapterSpec(layers="28-29").layers_of(30) == (28, 29)
    assert AdapterSpec(layers="3-5").layers_of(30) == (3, 4, 5)
    assert AdapterSpec(layers=[4, 4, 1]).layers_of(30) == (1, 4)  # type: ignore[arg-type]
    for wrong in ("5-3", [], [-1], 0, "a-b"):
        with pytest.raises(ValidationError):
            AdapterSpec(layers=wrong)  # type: ignore[arg-type]


def test_validation_metrics_need_answers_tickets_and_a_known_name() -> None:
    assert ("validation_metrics",) in faults(lambda: train(validation_metrics=["exact"]))
    asked = {"base_model": "m", "validation_metrics": ["exact", "exakt"], "validation_items": 8, "early_stopping": {}}
    found = faults(lambda: pipeline_spec(train=asked, split={"validation_fraction": 0}))
    assert set(found) == {
        ("train", "validation_items"),
        ("train", "early_stopping"),
        ("train", "validation_metrics", 1),
    }
    assert found["train", "validation_metrics", 1][1] == "did you mean `exact`?"


def test_other_metrics_of_the_same_answers_train_nothing_again() -> None:
    one, other = (train(validation_items=8, validation_metrics=[name]).for_worker() for name in ("exact", "chrf"))
    assert one == other


def test_early_stopping_with_a_falling_rate_is_a_warning() -> None:
    (advice,) = training_advice(train(early_stopping={"patience": 3}))
    assert "lr_scheduler cosine" in advice
    assert training_advice(train(early_stopping={"patience": 3}, lr_scheduler="constant")) == []


def test_sharding_is_called_experimental() -> None:
    (advice,) = training_advice(train(sharding="full", processes=2))
    assert "train.sharding full is experimental" in advice


def test_faults_stand_where_they_are_written(explain: Callable[[str], str]) -> None:
    advice = explain(
        "version: 1\npipelines:\n  demo:\n    source: {kind: generated}\n"
        "    train: {base_model: m, method: full, learning_rate: 2e-3}\n"
        "    gates: {rules: [{metric: exact, value_threshold: 0.5}]}\n    register: {name: demo}\n"
    )
    assert ":5:57" in advice
    assert "usual, and this is more than 10 times off" in advice
    assert "allow_unusual_learning_rate: true" in advice


@pytest.mark.parametrize(
    ("answer", "rule", "more", "unjudged"),
    [("[{category}]\n{reply}", "field_category", {}, "{reply}"), ("[{category}]\n{reply}", "exact", {}, "{reply}"),
     ("[{category}]\n{reply}", "chrf", {}, None), ("[{category}]\n{reply}", "heldout_loss", {}, None),
     ("[{category}] {priority}", "macro_f1_category", {"metrics": [{"uses": "macro_f1", "field": "category"}]},
      "{priority}"),
     ("[{category}]\n{reply}", "reply", {"metrics": [{"uses": "reply"}]}, None),
     ("[{category}]\n{reply}", "right", {"labels": "differing"}, None), ("[{category}]", "field_category", {}, None)],
)  # fmt: skip
def test_a_trained_column_that_no_rule_judges_is_worth_a_word(
    answer: str, rule: str, more: dict[str, Any], unjudged: str | None
) -> None:
    change = {"metric": rule, "change_threshold": {"mode": "improve"}}
    gates = GatesSpec.model_validate({"rules": [change]})
    evaluate = EvaluateSpec.model_validate({"fields": r"\[(?P<category>\w+)\]", **more})
    advice = unjudged_advice(train(prompt={"answer": answer}), evaluate, gates)
    assert [text.split(",")[0] for text in advice] == ([f"train.prompt.answer teaches {unjudged}"] if unjudged else [])


def test_validation_tickets_are_not_judged_by_a_floor_that_they_set() -> None:
    unset, declared = (
        EvaluateSpec.model_validate({"metrics": [{"uses": "reply", **more}]}) for more in ({}, {"floor": 0.2})
    )
    assert "reply" in unset.scored_names()
    assert "reply" not in unset.validation_names()
    assert "reply" in declared.validation_names()
