"""Ladders and sweeps as they are declared: every fault at its place, with what was probably meant."""

from typing import Any

import pytest

from schemas.choice import GridSweep, OptunaSweep, number_kind, path_fault, train_paths
from tests.schemas.test_pipeline import faults
from tests.support.specs import pipeline_spec


def train(**settings: Any) -> dict[str, Any]:
    return {"base_model": "m", **settings}


def ladder(*rungs: dict[str, Any], metric: str = "exact", **settings: Any) -> dict[str, Any]:
    declared = [{"name": f"r{number}", "set": rung} for number, rung in enumerate(rungs)]
    return train(method="ladder", ladder={"target": {"metric": metric, "value": 0.8}, "rungs": declared}, **settings)


def sweep(over: dict[str, Any], kind: str = "optuna", **settings: Any) -> dict[str, Any]:
    return train(sweep={"kind": kind, "over": over, **settings})


def test_a_rung_and_a_trial_are_trainings_with_these_changes() -> None:
    spec = pipeline_spec(
        train=ladder(
            {"method": "qlora", "adapter.rank": 4}, {"method": "full", "learning_rate": 2e-5}, learning_rate=1e-3
        )
    ).train
    assert spec.ladder is not None
    first = spec.training(spec.ladder.rungs[0].set)
    assert (first.method, first.adapter.rank, first.adapter.alpha, first.learning_rate) == ("qlora", 4, 32, 1e-3)
    assert spec.first() == first
    assert set(type(first).model_fields).isdisjoint({"ladder", "sweep", "model", "trained_on"})
    plain = pipeline_spec(train=train(epochs=2)).train
    assert plain.training().model_dump() == plain.model_dump(exclude={"ladder", "sweep", "model", "trained_on"})


def test_a_wrong_path_is_reported_with_the_one_that_was_meant() -> None:
    over = {
        "adapter.rnak": [1],
        "adapter": [1],
        "prompt.user": ["x"],
        "format": ["completion"],
        "learning_rate": [1e-4],
    }
    reported = {fault[1][-1]: fault[0] for fault in faults(train=sweep(over))}
    assert reported == {
        "adapter.rnak": "`adapter.rnak` is not a setting of train",
        "adapter": "`adapter` is a section",
        "prompt.user": "`prompt.user` cannot differ: every training must answer the same prompt, which is served",
        "format": "`format` cannot differ: trainings of two formats answer different prompts",
    }
    assert path_fault("lerning_rate") == ("`lerning_rate` is not a setting of train", "did you mean `learning_rate`?")
    assert path_fault("rank") is not None
    assert {"adapter.rank", "learning_rate", "quantization.double_quant", "max_steps"} <= train_paths().keys()
    assert (number_kind("adapter.layers"), number_kind("warmup"), number_kind("method")) == (int, float, None)


@pytest.mark.parametrize(
    ("over", "reported"),
    [
        ({"learning_rate": {"low": 1e-2, "high": 1e-3}}, "low 0.01 is not below high 0.001"),
        ({"weight_decay": {"low": 0, "high": 1, "log": True}}, "a log range needs low above 0, got 0"),
        (
            {"method": {"low": 1, "high": 2}},
            "`method` is not a number and cannot have a range; list its values: [a, b]",
        ),
        ({"adapter.rank": {"low": 1, "high": 2.5}}, "`adapter.rank` takes whole numbers, got 1 to 2.5"),
        ({"learning_rate": {"low": 1e-2, "high": 5}}, "5 should be less than or equal to 1"),
        ({"adapter.rank": [8, 0]}, "0 should be greater than or equal to 1"),
        ({"method": ["lora", "ladder"]}, "'ladder' should be 'full', 'lora' or 'qlora'"),
        ({"allow_download": [True]}, "`allow_download` is not a setting to search over"),
    ],
)
def test_a_value_that_no_training_can_have_is_reported_at_its_path(over: dict[str, Any], reported: str) -> None:
    assert faults(train=sweep(over)) == [(reported, ("sweep", "over", next(iter(over))))]


def test_values_that_are_right_alone_and_clash_together_are_told() -> None:
    over = {"learning_rate": {"low": 1e-4, "high": 2.5e-3}, "method": ["lora", "full"]}
    ((message, at),) = faults(train=sweep(over))
    assert message.startswith("learning_rate 0.0025, method full: ")
    assert at == ("sweep", "over")
    many = {"seed": list(range(20)), "epochs": list(range(1, 20))}
    ((message, _),) = faults(train=sweep(many, kind="grid"))
    assert message == "380 combinations of values and limits; at most 256 can be checked"


def test_rungs_have_names_of_their_own_and_each_a_method() -> None:
    declared = ladder({"method": "lora"}, {"method": "full", "learning_rate": 0.5}, {"epochs": 2})
    declared["ladder"]["rungs"][1]["name"] = "r0"
    reported = faults(train=declared)
    assert reported[0] == ("there are two rungs 'r0'", ("ladder", "rungs", 1, "name"))
    assert "learning_rate" in reported[1][0]
    assert reported[1][1] == ("ladder", "rungs", 1, "set")
    assert reported[2] == ("rung 'r2' has no `method`", ("ladder", "rungs", 2, "set"))


def test_method_and_ladder_belong_together_and_exclude_a_sweep() -> None:
    assert faults(train=train(method="ladder"))[0][0] == "method ladder has no `ladder`"
    both = ladder({"method": "lora"}, {"method": "full"}) | {"method": "lora"}
    assert faults(train=both)[0][0] == "`ladder` needs `method: ladder`"
    both = ladder({"method": "lora"}, {"method": "full"}) | sweep({"seed": [1]})
    assert faults(train=both | {"method": "ladder"})[0][0] == "there is both a ladder and a sweep; use one of them"


def test_the_metric_is_one_of_scoring_and_validation_is_not_empty() -> None:
    rungs = ({"method": "lora"}, {"method": "full"})
    unknown = faults(train=ladder(*rungs, metric="exakt"), split={"validation_fraction": 0})
    assert unknown == [
        ("unknown metric 'exakt'", ("train", "ladder", "target", "metric")),
        ("trainings are compared on the validation split, but there is none", ("split", "validation_fraction")),
    ]
    assert faults(train=sweep({"seed": [1]}, metric="bleu")) == [
        ("unknown metric 'bleu'", ("train", "sweep", "metric"))
    ]
    assert pipeline_spec(
        train=sweep({"seed": [1]}, metric="bleu"), evaluate={"metrics": [{"uses": "bleu"}]}
    ).train.choice


def test_a_grid_is_every_combination_and_a_recorded_sweep_reads_back() -> None:
    grid = GridSweep(kind="grid", over={"learning_rate": [1e-4, 1e-3], "adapter.target_modules": ["all-linear", ["q"]]})
    assert [tuple(point.values()) for point in grid.grid()] == [
        (1e-4, "all-linear"), (1e-4, ("q",)), (1e-3, "all-linear"), (1e-3, ("q",)),
    ]  # fmt: skip
    declared = OptunaSweep(kind="optuna", over={"seed": [1, 2], "learning_rate": {"low": 1e-4, "high": 1e-3}})
    assert OptunaSweep.model_validate_json(declared.model_dump_json()) == declared
