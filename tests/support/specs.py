"""Pipelines as `pipelines.yaml` declares them, without a file."""

from typing import Any

from schemas.pipeline import PipelineSpec

SMALL_FILE = """\
version: 1
pipelines:
  replies:
    source: {kind: generated}
    train: {base_model: "file:models/x"}
    gates: {rules: [{metric: exact, value_threshold: 0.5}]}
    register: {name: replies}
"""
"""The smallest valid pipelines.yaml."""


def pipeline_spec(**sections: Any) -> PipelineSpec:
    """The smallest valid pipeline, with these sections instead of its own."""
    parts = {
        "name": "demo",
        "source": {"kind": "generated"},
        "train": {"base_model": "m"},
        "gates": {"rules": [{"metric": "exact", "value_threshold": 0.5}]},
        "register": {"name": "demo"},
    }
    return PipelineSpec.model_validate(parts | sections)
