"""What the digest of a run's inputs depends on, and what it does not."""

from pathlib import Path
from typing import Any

import pytest

from flows.build import build, input_digest
from flows.context.graph_context import GraphContext
from schemas.artifacts import ModelRef
from tests.support.specs import pipeline_spec


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"schedule": {"cron": "@daily", "timezone": "Europe/Berlin", "resource": "gpu"}}, True),
        ({"schedule": {"triggers": [{"event": "tickets.arrived", "quiet_minutes": 10}]}}, True),
        ({"schedule": {"retrain": {"min_new": 200, "drift": {"min_new": 50}}}}, True),
        ({"notify": {"webhook_env": "HOOK"}}, True),
        ({"place": {"finetune": "gpus"}}, True),
        ({"feedback": {"learn": True}}, False),
    ],
)  # fmt: skip
def test_when_and_where_a_pipeline_runs_is_not_among_the_inputs_of_its_verdict(
    change: dict[str, Any], same: bool, tiny_model: ModelRef, tmp_path: Path
) -> None:
    def digest_of_inputs(**sections: Any) -> str:
        spec = pipeline_spec(train={"base_model": f"file:{tiny_model.root}"}, **sections)
        context = GraphContext("f", root=tmp_path, cache=tmp_path)
        return input_digest(spec, build(spec, context).graph, context)

    assert (digest_of_inputs(**change) == digest_of_inputs()) is same
