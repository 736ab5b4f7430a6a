"""Pipelines as `pipelines.yaml` declares them, without a file."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.pipeline import PipelineSpec
from schemas.spec import Conflict, UnfitError

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


def conflicts(make: Callable[[], object]) -> tuple[Conflict, ...]:
    """What does not fit together in settings that `make` must not accept."""
    with pytest.raises(ValidationError) as caught:
        make()
    (error,) = caught.value.errors()
    unfit = error["ctx"]["error"]
    assert isinstance(unfit, UnfitError)
    return unfit.faults
