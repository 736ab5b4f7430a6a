"""PipelineSpec: one pipeline of `pipelines.yaml`, typed and frozen.

Knows nothing of YAML (`schemas/load.py` reads it) and nothing of the tasks that use its parts.
Tasks receive the smallest part they need (`DedupStep`), never the whole.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from schemas.curation import CurateSpec, SplitSpec, TableSpec
from schemas.evaluation import EvaluateSpec, GatesSpec
from schemas.source import SourceSpec
from schemas.spec import Spec
from schemas.training import TrainSpec


class RegisterSpec(Spec):
    """`register`: where a candidate is recorded. Aliases move only with PROMOTE."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Registered model name. Pipelines that share it compete for the same champion."""
    tracking_uri: str = ""
    """MLflow store or server; empty uses MLFLOW_TRACKING_URI, else SQLite under .tunegate/."""
    experiment: str = "tunegate"


class ScheduleSpec(Spec):
    """`schedule`: when `tunegate serve` starts the pipeline by itself."""

    cron: str
    timezone: str = "UTC"


class PipelineSpec(Spec):
    """From tickets to a champion alias, declared."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    description: str = ""
    source: SourceSpec
    table: TableSpec = Field(default=TableSpec(), alias="schema")
    curate: CurateSpec = CurateSpec()
    split: SplitSpec = SplitSpec()
    train: TrainSpec
    evaluate: EvaluateSpec = EvaluateSpec()
    gates: GatesSpec
    registry: RegisterSpec = Field(alias="register")
    schedule: ScheduleSpec | None = None

    @model_validator(mode="after")
    def _gates_name_known_metrics(self) -> Self:
        known = self.evaluate.metric_names()
        for rule in self.gates.rules:
            if rule.metric not in known:
                raise ValueError(f"gates: unknown metric {rule.metric!r}; allowed: {', '.join(known)}")
            if rule.slice is not None:
                column, equals, _ = rule.slice.partition("=")
                if not equals or column not in self.evaluate.slices:
                    columns = ", ".join(self.evaluate.slices)
                    raise ValueError(
                        f"gates: slice {rule.slice!r} is not `column=value` of evaluate.slices ({columns})"
                    )
        return self
