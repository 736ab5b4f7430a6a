"""One pipeline of `pipelines.yaml`, typed and frozen: a `PipelineSpec`, or a `DataPipeline` if it trains nothing.

`schemas/load.py` reads the YAML. Tasks get only the part that they need, such as `DedupStep`.
"""

from collections.abc import Container, Iterator
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from schemas.choice import TrainSection
from schemas.comparison import with_comparison
from schemas.curation import CurateSpec, SplitSpec, TableSpec
from schemas.curation_steps import CURATION_STEPS, QualityStep
from schemas.data_checks import DATA_CHECKS, DataCheck, repeated_checks
from schemas.errors import ConfigError
from schemas.evaluation import EvaluateSpec
from schemas.feedback import FeedbackSpec
from schemas.gates import GATE_SECTIONS, GatesSpec
from schemas.metrics import METRICS
from schemas.named_tables import NamedTable, TableName, table_conflicts
from schemas.pipeline_rules import section_faults
from schemas.schedule import NotifySpec, ScheduleSpec
from schemas.source import SOURCES, SourceSpec
from schemas.spec import Conflict, Spec, UnfitError


class RegisterSpec(Spec):
    """`register`: where candidates are recorded. Aliases move only with PROMOTE."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Registered model name. Pipelines that share it compete for the same champion."""
    tracking_uri: str = ""
    """MLflow store or server; empty uses MLFLOW_TRACKING_URI, else SQLite under .tunegate/."""
    experiment: str = "tunegate"
    """MLflow experiment of the runs."""
    approval: Literal["none", "required"] = "none"
    """`required`: a candidate with PROMOTE waits until a person approves it."""
    cooldown_days: float = Field(1.0, ge=0, le=365, allow_inf_nan=False)
    """For this long after a rollback no candidate is promoted without a person's approval; of several rollbacks, until
    the latest of these ends."""
    cooldown_items: int = Field(100, ge=0)
    """After a rollback a candidate of the same `train` and `curate` is promoted without a person once so many of its
    held-out items did not judge the version that was rolled back; 0 for no such condition."""


Deployable = Literal["pipeline", "curate", "finetune", "assess", "release"]


class PlaceSpec(Spec):
    """`place`: stage -> work pool; other stages run where the run was started."""

    curate: str | None = Field(default=None, min_length=1, max_length=200)
    """Work pool of the curation."""
    finetune: str | None = Field(default=None, min_length=1, max_length=200)
    """Work pool of the training."""
    assess: str | None = Field(default=None, min_length=1, max_length=200)
    """Work pool of the answers and scores."""
    release: str | None = Field(default=None, min_length=1, max_length=200)
    """Only the bundle: ledger, promotion, report and MLflow stay where the ledger is."""
    wait_for_worker: float = Field(default=10.0, gt=0, le=1440)
    """Minutes to wait for a worker before the run ends."""
    queues: dict[Deployable, str] = Field(default={})
    """Stage, or `pipeline` for whole runs -> work queue in its pool; the pool's default queue if not given."""
    job_variables: dict[Deployable, dict[str, Any]] = Field(default={})
    """Stage or `pipeline` -> job variables of its deployment, such as `{finetune: {image: registry/tunegate:3}}`.
    Without secrets: Prefect stores and shows them."""

    def pool_of(self, stage: str) -> str | None:
        """The stage's pool; None if it runs where the run was started."""
        pool = getattr(self, stage)
        return None if pool is None else str(pool)

    def pools(self) -> dict[str, str]:
        """Stage -> pool, of the placed stages in order."""
        found = {stage: self.pool_of(stage) for stage in ("curate", "finetune", "assess", "release")}
        return {stage: pool for stage, pool in found.items() if pool is not None}


TRAINED = ("train", "evaluate", "gates", "register", "feedback")
"""Sections about a model. A pipeline with none of them is one of data alone."""


class DataPipeline(Spec):
    """A pipeline from tickets to train, validation and test: all of it, if nothing is trained."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    """Key under `pipelines`: letters, digits and dashes."""
    description: str = ""
    """One sentence about the pipeline."""
    engine: Literal["local", "ray"] = "local"
    """Where steps run: in processes on this machine, or on the nodes of the Ray cluster in RAY_ADDRESS. The results are
    the same bytes."""
    source: SourceSpec
    table: TableSpec = Field(default=TableSpec(), alias="schema")
    tables: dict[TableName, NamedTable] = Field(default={})
    """Files that SQL steps, rules and SQL checks may read, each by its name here."""
    curate: CurateSpec = CurateSpec()
    checks: tuple[DataCheck, ...] = ()
    """What the tickets must satisfy before anything is trained on them: the contract with the source, and the verdict
    of a pipeline of data alone."""
    split: SplitSpec = SplitSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    notify: NotifySpec | None = None
    place: PlaceSpec = PlaceSpec()
    """Prefect work pool of each stage; other stages run where the run was started."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if faults := [*repeated_checks(self.checks), *table_conflicts(self.tables), *self._conflicts()]:
            raise UnfitError(faults)
        return self

    def _conflicts(self) -> Iterator[Conflict]:
        """Yield what there is no model for."""
        for index, step in enumerate(self.curate.steps):
            if isinstance(step, QualityStep) and step.perplexity:
                message, at = "perplexity is measured with train.base_model", ("curate", "steps", index, "perplexity")
                yield Conflict(message, at=at, hint="remove it, or declare train, gates and register")
        for stage in self.place.pools():
            if stage != "curate":
                yield Conflict(f"there is no stage {stage}", at=("place", stage), hint="remove it: nothing is trained")
        if self.schedule.retrain.min_held_out == "planned":
            place = ("schedule", "retrain", "min_held_out")
            yield Conflict("there is no gate to plan for", at=place, hint="give a number, or remove it")


class PipelineSpec(DataPipeline):
    """A pipeline from tickets to a champion alias; without the sections from `train` on, one of data alone."""

    train: TrainSection
    evaluate: EvaluateSpec = EvaluateSpec()
    gates: GatesSpec
    registry: RegisterSpec = Field(alias="register")
    feedback: FeedbackSpec | None = None

    def _conflicts(self) -> Iterator[Conflict]:
        sections = {"train": self.train, "split": self.split, "evaluate": self.evaluate, "gates": self.gates}
        yield from section_faults(sections)
        if self.schedule.resume_hold and not self.gates.looks.at:
            hint = "declare gates.looks.at, such as [248, 496, 744], before the first verdict, or remove it"
            yield Conflict("no look is declared to resume a HOLD with", at=("schedule", "resume_hold"), hint=hint)
        if self.schedule.resume_hold and self.place.pools():
            hint = "remove `place`: a stage on a work pool declares its own graph, with a training"
            yield Conflict("a HOLD is not resumed on a work pool", at=("schedule", "resume_hold"), hint=hint)

    @property
    def judged_gates(self) -> GatesSpec:
        """The gates as they are judged: with a comparison with the champion unless one is declared."""
        return with_comparison(self.gates, self.evaluate)

    def n_items(self, n_held_out: int) -> int:
        """Return the held-out items of a candidate's first look, of so many held-out tickets."""
        return self.gates.looks.items(min(self.evaluate.max_items, n_held_out))


def model_of(spec: DataPipeline) -> str:
    """Return the name of the registered model; empty for a pipeline of data alone."""
    return spec.registry.name if isinstance(spec, PipelineSpec) else ""


def with_model(spec: DataPipeline) -> PipelineSpec:
    """The pipeline as one that trains a model.

    Raises:
        ConfigError: TG0159, it is one of data alone.
    """
    if isinstance(spec, PipelineSpec):
        return spec
    raise ConfigError(
        f"{spec.name} is a pipeline of data alone: it has no model", code="TG0159", where=spec.name,
        hint=f"`tunegate data export {spec.name}` writes its data; declare train, gates and register for a model",
    )  # fmt: skip


def with_training(spec: PipelineSpec) -> PipelineSpec:
    """The pipeline as one that trains its model.

    Raises:
        ConfigError: TG0159, the model was trained elsewhere.
    """
    if not spec.train.is_external:
        return spec
    raise ConfigError(
        f"{spec.name} trains nothing: its model was trained elsewhere", code="TG0159",
        where=f"{spec.name}.train.method",
        hint=f"`tunegate run {spec.name}` judges the model",
    )  # fmt: skip


def pipeline_model(sections: Container[str]) -> type[DataPipeline]:
    """Return the form of a pipeline with these sections."""
    return PipelineSpec if any(name in sections for name in TRAINED) else DataPipeline


SOURCES.held_by(DataPipeline, PipelineSpec)
CURATION_STEPS.held_by(CurateSpec, DataPipeline, PipelineSpec)
DATA_CHECKS.held_by(DataPipeline, PipelineSpec)
METRICS.held_by(EvaluateSpec, PipelineSpec)
GATE_SECTIONS.held_by(PipelineSpec)
