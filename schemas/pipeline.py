"""PipelineSpec: one pipeline of `pipelines.yaml`, typed and frozen.

Knows nothing of YAML (`schemas/load.py` reads it) and nothing of the tasks that use its parts.
Tasks receive the smallest part they need (`DedupStep`), never the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.choice import TrainSection, choice_faults
from schemas.curation import CurateSpec, SplitSpec, TableSpec
from schemas.endpoint import endpoint_faults
from schemas.evaluation import EvaluateSpec
from schemas.feedback import FeedbackSpec
from schemas.gates import GatesSpec, SliceGuard
from schemas.metrics import MacroF1Metric
from schemas.names import closest
from schemas.place import PlaceSpec
from schemas.schedule import NotifySpec, RetrainSpec, ScheduleSpec, TriggerSpec
from schemas.source import SourceSpec
from schemas.spec import Fault, Spec, UnfitError
from schemas.training import TrainSpec
from schemas.training_rules import validation_faults


class RegisterSpec(Spec):
    """`register`: where a candidate is recorded. Aliases move only with PROMOTE."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Registered model name. Pipelines that share it compete for the same champion."""
    tracking_uri: str = ""
    """MLflow store or server; empty uses MLFLOW_TRACKING_URI, else SQLite under .tunegate/."""
    experiment: str = "tunegate"
    """MLflow experiment of the runs."""
    approval: Literal["none", "required"] = "none"
    """`required`: a candidate that earned PROMOTE waits until a person approves it."""
    cooldown_days: float = Field(1.0, ge=0, le=365, allow_inf_nan=False)
    """After a rollback nobody is promoted for so long without a person."""


class PipelineSpec(Spec):
    """From tickets to a champion alias, declared."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    """Key under `pipelines`: letters, digits and dashes."""
    description: str = ""
    """One sentence for people."""
    engine: Literal["local", "ray"] = "local"
    """Where steps do their work: in processes of this machine, or on the nodes of the Ray cluster that RAY_ADDRESS
    names. The results are the same bytes."""
    source: SourceSpec
    table: TableSpec = Field(default=TableSpec(), alias="schema")
    curate: CurateSpec = CurateSpec()
    split: SplitSpec = SplitSpec()
    train: TrainSection
    evaluate: EvaluateSpec = EvaluateSpec()
    gates: GatesSpec
    registry: RegisterSpec = Field(alias="register")
    feedback: FeedbackSpec | None = None
    schedule: ScheduleSpec | None = None
    triggers: tuple[TriggerSpec, ...] = ()
    """Events that start the pipeline."""
    retrain: RetrainSpec = RetrainSpec()
    notify: NotifySpec | None = None
    place: PlaceSpec = PlaceSpec()
    """Which work pool of Prefect does a stage; a stage that is not named runs where the run is."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        faults = [
            *_gate_faults(self.gates, self.evaluate),
            *_metric_faults(self.evaluate),
            *endpoint_faults(self.train, self.evaluate, self.gates),
            *_judge_faults(self.gates, self.evaluate),
            *_canary_faults(self.gates, self.train),
            *_routing_faults(self.evaluate),
            *_prompt_faults(self.train),
            *validation_faults(self.train, self.split, self.evaluate),
            *choice_faults(self.train, self.evaluate, self.split),
        ]
        if faults:
            raise UnfitError(faults)
        return self


def _gate_faults(gates: GatesSpec, evaluate: EvaluateSpec) -> Iterator[Fault]:
    metrics = evaluate.metric_names()
    whole = {traits.name for traits in evaluate.traits() if not traits.sliceable}
    for index, rule in enumerate(gates.rules):
        if rule.metric in whole and rule.slice is not None:
            yield Fault(
                f"{rule.metric} has no meaning on a slice",
                at=("gates", "rules", index, "slice"),
                hint=f"judge the slice by field_{rule.metric.removeprefix('macro_f1_')}",
            )
        if rule.metric not in metrics:
            yield Fault(
                f"gate on unknown metric {rule.metric!r}",
                at=("gates", "rules", index, "metric"),
                hint=closest(rule.metric, metrics),
            )
        if rule.slice is None:
            continue
        column, equals, _ = rule.slice.partition("=")
        if not equals or column not in evaluate.slices:
            yield Fault(
                f"slice {rule.slice!r} is not `column=value` of a column in evaluate.slices",
                at=("gates", "rules", index, "slice"),
                hint=f"evaluate.slices: {', '.join(evaluate.slices) or 'none declared'}",
            )
    if gates.slices is not None:
        yield from _slice_guard_faults(gates.slices, evaluate)


def _canary_faults(gates: GatesSpec, train: TrainSpec) -> Iterator[Fault]:
    if gates.canaries is not None and train.canaries is None:
        yield Fault(
            "no secrets are planted whose exposure could be measured",
            at=("gates", "canaries"),
            hint="declare train.canaries, such as {n: 4, repeats: 1}",
        )


def _judge_faults(gates: GatesSpec, evaluate: EvaluateSpec) -> Iterator[Fault]:
    if gates.judge is not None and not {"zero_shot", "few_shot", "retrieval", "endpoint"} & set(evaluate.arms):
        yield Fault(
            "before there is a champion the judge has nobody to compare with",
            at=("gates", "judge"),
            hint="add zero_shot to evaluate.arms",
        )


def _slice_guard_faults(guard: SliceGuard, evaluate: EvaluateSpec) -> Iterator[Fault]:
    metrics = tuple(traits.name for traits in evaluate.traits() if traits.sliceable)
    if guard.metric not in metrics:
        yield Fault(
            f"slices guarded by unknown metric {guard.metric!r}",
            at=("gates", "slices", "metric"),
            hint=closest(guard.metric, metrics),
        )
    for index, column in enumerate(guard.by):
        if column not in evaluate.slices:
            yield Fault(
                f"the items are not sliced by {column}",
                at=("gates", "slices", "by", index),
                hint=f"add {column} to evaluate.slices",
            )


def _metric_faults(evaluate: EvaluateSpec) -> Iterator[Fault]:
    names = evaluate.metric_names()
    fields = evaluate.field_names()
    for index, metric in enumerate(evaluate.metrics):
        name = metric.traits().name
        if names.count(name) > 1:
            at: tuple[str | int, ...] = ("evaluate", "metrics", index)
            yield Fault(f"there are two metrics {name!r}", at=at, hint="give one of them another name")
        if isinstance(metric, MacroF1Metric) and metric.field not in fields:
            yield Fault(
                f"macro_f1 of {metric.field!r}, which is no named group of evaluate.fields",
                at=("evaluate", "metrics", index, "field"),
                hint=f"evaluate.fields has: {', '.join(fields) or 'no groups'}",
            )


def _routing_faults(evaluate: EvaluateSpec) -> Iterator[Fault]:
    fields = evaluate.field_names()
    if fields and evaluate.routing_field is not None and evaluate.routing_field not in fields:
        yield Fault(
            f"routing_field {evaluate.routing_field!r} is no named group of evaluate.fields",
            at=("evaluate", "routing_field"),
            hint=f"take one of {', '.join(fields)}, or null for no routing baseline",
        )


def _prompt_faults(train: TrainSpec) -> Iterator[Fault]:
    if train.format == "completion" and train.prompt.system:
        yield Fault(
            "format completion has no system message",
            at=("train", "prompt", "system"),
            hint="put the text at the start of prompt.user, or set system: null",
        )
