"""Metrics of validation answers are a separate step, and `validate` shows advice."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from flows.build import build
from flows.cli.planning import validate
from flows.context.graph_context import GraphContext
from flows.graph.graph import Node
from schemas.artifacts import ModelRef
from schemas.pipeline import PipelineSpec
from tests.support.specs import SMALL_FILE, pipeline_spec


def _spec(model: ModelRef, **train: Any) -> PipelineSpec:
    return pipeline_spec(train={"base_model": f"file:{model.root}", **train})


def test_other_metrics_of_the_same_answers_do_not_train_again(tiny_model: ModelRef, tmp_path: Path) -> None:
    def nodes(*metrics: str) -> dict[str, Node]:
        spec = _spec(tiny_model, validation_items=4, validation_metrics=metrics)
        return build(spec, GraphContext("f", root=tmp_path, cache=tmp_path)).graph.nodes

    def key(node: Node) -> tuple[Any, ...]:
        return node.info, node.reads, node.params, {name: handle.node for name, handle in node.inputs.items()}

    one, other, none = nodes("exact"), nodes("chrf"), nodes()
    assert key(one["train"]) == key(other["train"]) == key(none["train"])
    assert one["validation_curves"].params != other["validation_curves"].params
    inputs = {name: handle.node for name, handle in one["validation_curves"].inputs.items()}
    assert inputs == {"splits": "decontaminate", "trained": "train"}
    assert "validation_curves" not in none


def test_validate_warns_of_unusual_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pipelines.yaml"
    path.write_text(SMALL_FILE.replace('x"}', 'x", learning_rate: 1e-3}'))
    assert validate(config=path, as_json=True) == 0
    captured = capsys.readouterr()
    (warning,) = orjson.loads(captured.out)["warnings"]
    assert warning.startswith("train.learning_rate 0.001 is unusual for method lora")
    assert f"warning {warning} (replies)" in captured.err
