"""Metrics of validation answers are declared as a step of their own, and advice is told where a user looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from flows.commands.config import validate
from flows.finetune import finetune_steps
from schemas.artifacts import ModelRef
from schemas.pipeline import PipelineSpec


def _spec(model: ModelRef, **train: Any) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": "small",
            "source": {"kind": "generated"},
            "train": {"base_model": f"file:{model.root}", **train},
            "gates": {"rules": [{"metric": "exact", "value_threshold": 0.5}]},
            "register": {"name": "small"},
        }
    )


def test_other_metrics_of_the_same_answers_train_nothing_again(tiny_model: ModelRef, tmp_path: Path) -> None:
    def steps(*metrics: str) -> dict[str, Any]:
        spec = _spec(tiny_model, validation_items=4, validation_metrics=metrics)
        return {step.name: step for step in finetune_steps(spec, root=tmp_path, cache=tmp_path)}

    one, other, none = steps("exact"), steps("chrf"), steps()
    assert one["train"] == other["train"] == none["train"]
    assert one["validation_curves"].params != other["validation_curves"].params
    assert one["validation_curves"].inputs == {"splits": "decontaminate", "trained": "train"}
    assert "validation_curves" not in none


def test_validate_tells_what_is_worth_a_second_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pipelines.yaml"
    path.write_text(
        "version: 1\npipelines:\n  replies:\n    source: {kind: generated}\n"
        "    train: {base_model: file:x, learning_rate: 1e-3}\n"
        "    gates: {rules: [{metric: exact, value_threshold: 0.5}]}\n    register: {name: replies}\n"
    )
    assert validate(config=path, as_json=True) == 0
    told = capsys.readouterr()
    (warning,) = orjson.loads(told.out)["warnings"]
    assert warning.startswith("train.learning_rate 0.001 is unusual for method lora")
    assert f"warning {warning} (replies)" in told.err
