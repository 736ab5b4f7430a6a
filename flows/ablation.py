"""A data ablation: the same training on curated, raw and less curated tickets, judged on the same held-out items.

Every step goes through the store, so that what is equal is shared and a killed ablation goes on. It reads the ledger
(for the split to go on from) and writes nothing there: no run, no candidate, no verdict. Called by `tunegate ablate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from flows.assess import assess_steps
from flows.cluster import on_cluster, place_of, spread_of
from flows.curate import curate_steps
from flows.earlier import Earlier, earlier_results
from flows.engine.plan import run_step
from flows.engine.step import Step
from flows.engine.store import Store
from flows.feedback import learn_step
from flows.finetune import finetune_steps
from flows.settings import Settings, open_ledger, open_store
from flows.standing import Standing
from schemas.artifacts import Artifact, DatasetRef, EvalSet, Scores, Splits, TicketTable, TrainedRef
from schemas.checks import ContaminationSpec
from schemas.choice import TrainSection
from schemas.curation import CurateSpec
from schemas.curation_steps import CurateStep, PythonStep, RedactStep, RuleStep, SqlStep
from schemas.errors import ConfigError, DataError, GateError
from schemas.evidence import CheckEvidence
from schemas.pipeline import PipelineSpec
from schemas.template import template_columns
from tasks.assess.ablation import AblationRow, AblationTable, answer_of, judge_arm, shared_confidence
from tasks.assess.contamination import REASONS
from tasks.curate.extract import fingerprint_source
from tasks.progress import silent

CURATED = "curated"
LEFT_OUT = frozenset({"warehouse", "card"})
"""Steps for people's questions, which no arm asks."""
ASKED, JUDGED = ("items", "contamination"), ("prompts_tuned", "answers_tuned", "scores_tuned")
"""Steps before a training, and after it."""
A = TypeVar("A", bound=Artifact)
Told = Callable[[str, Step, float, bool], None]
"""Called after each step with the arm, the step, its seconds, and whether it was reused."""


@dataclass(frozen=True)
class Arm:
    """One way of curating."""

    name: str
    told: str
    steps: tuple[CurateStep, ...]
    takes_all: bool = False
    """Every row, whatever `train.max_examples` says; else as many as the pipeline declares."""
    takes_k: bool = False
    """As many as the curated arm trained on."""


def arms_of(spec: PipelineSpec) -> tuple[Arm, ...]:
    """Raw tickets, as many raw ones as curated, and the curation without each of its steps; redaction always stays.

    Raises:
        ConfigError: TG0159, no step is declared beside redaction.
    """
    steps = spec.curate.steps
    kept = tuple(step for step in steps if isinstance(step, RedactStep))
    removable = [step for step in steps if not isinstance(step, RedactStep)]
    if not removable:
        raise ConfigError(
            "nothing is curated here beside redaction, so there is nothing to leave out", code="TG0159",
            where=f"{spec.name}.curate.steps", hint="declare steps: docs/curation.md",
        )  # fmt: skip
    arms = [
        Arm("raw", "redacted tickets as they came, all of them", kept, takes_all=True),
        Arm("raw-k", "as many of those as were curated, the newest", kept, takes_k=True),
    ]
    for step in removable:
        rest = tuple(each for each in steps if each is not step)
        label, number = label_of(step), sum(1 for arm in arms if arm.name.startswith(f"without-{label_of(step)}"))
        label = f"{label}_{number + 1}" if number else label
        arms.append(Arm(f"without-{label}", f"all steps but {label}", rest))
    return tuple(arms)


def label_of(step: CurateStep) -> str:
    """What a step is called in an arm's name."""
    return step.name if isinstance(step, RuleStep | SqlStep | PythonStep) else step.uses


def learnable(steps: tuple[CurateStep, ...], spec: PipelineSpec) -> tuple[CurateStep, ...]:
    """With a last rule for what no training can take: a ticket without anything to answer."""
    columns = template_columns(spec.train.prompt.answer)
    keep = " or ".join(f"{name} is not null" for name in ("messages", *columns))
    return (*steps, RuleStep(uses="rule", name="has_an_answer", keep=keep))


def choose_arms(arms: Sequence[Arm], only: Sequence[str]) -> tuple[Arm, ...]:
    """Those that are named; all where none is.

    Raises:
        ConfigError: TG0103, a name is none of them.
    """
    names = [arm.name for arm in arms]
    for name in only:
        if name not in names:
            raise ConfigError(f"no arm {name!r}; there are: {', '.join(names)}", code="TG0103", where="--only")
    return tuple(arm for arm in arms if not only or arm.name in only)


@dataclass
class Ablation:
    """The arms of one pipeline; `run` gives the table."""

    spec: PipelineSpec
    settings: Settings
    root: Path
    told: Told
    n_steps: int | None = None
    _store: Store = field(init=False)
    _fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        self._store = open_store(self.settings)
        self._fingerprint = fingerprint_source(self.spec.source, root=self.root)
        # One training, to its end: what stops early or is chosen among several has no equal steps.
        first = self.spec.train.first().model_copy(update={"early_stopping": None})
        gates = self.spec.gates
        if gates.contamination is None:
            gates = gates.model_copy(update={"contamination": ContaminationSpec()})
        train = TrainSection.model_validate(first.model_dump())
        self.spec = self.spec.model_copy(update={"train": train, "gates": gates})

    def run(self, arms: Sequence[Arm], metric: str) -> AblationTable:
        """Train and judge the curated arm, then each of the others.

        Raises:
            GateError: TG0623, tickets that the curated arm trained on give held-out items away.
            ConfigError: TG0103, the metric is not scored.
        """
        traits = next((each for each in self.spec.evaluate.traits() if each.name == metric), None)
        if traits is None:
            known = ", ".join(self.spec.evaluate.metric_names())
            raise ConfigError(f"{metric!r} is not scored; there are: {known}", code="TG0103", where="--metric")
        curated = self._curated()
        dataset, trained = _take(curated, "encode", DatasetRef), _take(curated, "train", TrainedRef)
        scores, items = _take(curated, "scores_tuned", Scores), _take(curated, "items", EvalSet)
        confidence = shared_confidence(self.spec.gates, len(arms))
        rows = [_row(Arm(CURATED, "as declared", ()), curated).model_copy(update={"value": scores.means.get(metric)})]
        for arm in arms:
            row, done = self._other(arm, curated, k=dataset.n_train, n_steps=trained.n_steps)
            if row.gain is None and row.n_steps != trained.n_steps:
                row = row.model_copy(update={"gain": "not judged", "reason": f"trained for {row.n_steps} steps"})
            elif row.gain is None:
                row = judge_arm(
                    row, curated=scores, arm=_take(done, "scores_tuned", Scores), items=items, traits=traits,
                    confidence=confidence, cluster_by=self.spec.gates.cluster_by,
                )  # fmt: skip
            rows.append(row)
        return AblationTable(
            pipeline=self.spec.name, metric=metric, n_items=items.n_items, n_steps=trained.n_steps,
            seed=self.spec.train.seed, confidence=confidence, items=items.digest, rows=tuple(rows),
            answer=answer_of({row.arm: row for row in rows[1:]}),
        )  # fmt: skip

    def _curated(self) -> dict[str, Artifact]:
        """As a run would, from the split of the last complete run; reused where that run has trained so."""
        earlier = earlier_results(open_ledger(self.settings), self._store, self.spec.name)
        done: dict[str, Artifact] = {}
        self._do(CURATED, self._data_steps(self.spec, earlier), done)
        if leaks := _leaks(done):
            raise GateError(
                f"{leaks} train tickets of the curated arm give held-out items away, so no arm can be judged",
                code="TG0623", where=CURATED, hint="tighten curate.decontaminate; `tunegate run` names the tickets",
            )  # fmt: skip
        spec = self.spec
        if self.n_steps is not None:
            spec = _with_steps(spec, self.n_steps, _take(done, "encode", DatasetRef).n_train)
        self._do(CURATED, self._model_steps(spec), done)
        return done

    def _other(
        self, arm: Arm, curated: dict[str, Artifact], *, k: int, n_steps: int
    ) -> tuple[AblationRow, dict[str, Artifact]]:
        """Other tickets, the same held-out items: the split goes on from the curated one."""
        try:
            curate = CurateSpec.model_validate({**dict(self.spec.curate), "steps": learnable(arm.steps, self.spec)})
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            return AblationRow(arm=arm.name, told=arm.told, gain="not judged", reason=f"cannot be made: {why}"), {}
        split = self.spec.split.model_copy(update={"stable": True, "retire_after_days": None})
        limit = None if arm.takes_all else k if arm.takes_k else self.spec.train.max_examples
        train = self.spec.train.model_copy(update={"max_examples": limit})
        spec = self.spec.model_copy(update={"curate": curate, "split": split, "train": train})
        done: dict[str, Artifact] = {"items": curated["items"]}
        steps = list(self._data_steps(spec, Earlier(split=_take(curated, "split", Splits))))
        try:
            self._do(arm.name, steps, done)
        except DataError as error:
            return AblationRow(arm=arm.name, told=arm.told, gain="not judged", reason=error.message), done
        finally:
            self._forget_raw(steps, done, curated)
        if leaks := _leaks(done):
            told = f"{leaks} of its train tickets give held-out items away"
            return _row(arm, done).model_copy(update={"gain": "not judged", "reason": told}), done
        spec = _with_steps(spec, n_steps, _take(done, "encode", DatasetRef).n_train)
        self._do(arm.name, self._model_steps(spec), done)
        return _row(arm, done), done

    def _data_steps(self, spec: PipelineSpec, earlier: Earlier) -> Iterator[Step]:
        """Curation, token ids, the held-out items, and whether the train tickets give any of them away."""
        steps = curate_steps(
            spec, fingerprint=self._fingerprint, root=self.root, cache=self.settings.cache, earlier=earlier,
            learned=learn_step(spec, self.settings.home), spread=spread_of(place_of(spec, self.settings)),
        )  # fmt: skip
        tuning = finetune_steps(spec, root=self.root, cache=self.settings.cache)
        yield from (step for step in steps if step.folder not in LEFT_OUT)
        yield from (step for step in tuning if step.name != "train")
        yield from self._assessing(spec, ASKED)

    def _model_steps(self, spec: PipelineSpec) -> Iterator[Step]:
        """Training, answers and scores."""
        tuning = finetune_steps(spec, root=self.root, cache=self.settings.cache)
        yield from (step for step in tuning if step.name == "train")
        yield from self._assessing(spec, JUDGED)

    def _assessing(self, spec: PipelineSpec, names: tuple[str, ...]) -> Iterator[Step]:
        steps = {step.name: step for step in assess_steps(spec, standing=Standing(), root=self.root)}
        yield from (steps[name] for name in names)

    def _forget_raw(self, steps: Sequence[Step], done: dict[str, Artifact], curated: dict[str, Artifact]) -> None:
        """Remove what only this arm made before redaction: `curate.keep_raw_days` finds the results of runs alone."""
        names = [step.folder for step in steps]
        shared = {artifact.root for artifact in curated.values()}
        for step in steps[: names.index("redact")] if "redact" in names else ():
            made = done.get(step.name)
            if isinstance(made, TicketTable) and made.root not in shared:
                self._store.discard(step.folder, made.root.name)

    def _do(self, arm: str, steps: Iterable[Step], done: dict[str, Artifact]) -> None:
        for step in on_cluster(steps, place_of(self.spec, self.settings)):
            if step.name in done:
                continue
            obtained = run_step(step, done, self._store, progress=silent)
            done[step.name] = obtained.artifact
            self.told(arm, step, obtained.seconds, obtained.reused)


def _with_steps(spec: PipelineSpec, n_steps: int, n_examples: int) -> PipelineSpec:
    """So many optimiser steps, over as many epochs as they need."""
    from tasks.train.batches import steps_per_epoch

    train = spec.train
    each = steps_per_epoch(
        n_examples, batch_size=train.batch_size * train.processes, accumulation=train.gradient_accumulation_steps
    )
    changed = train.model_copy(update={"max_steps": n_steps, "epochs": -(-n_steps // each)})
    return spec.model_copy(update={"train": changed})


def _row(arm: Arm, done: dict[str, Artifact]) -> AblationRow:
    trained = _take(done, "train", TrainedRef) if "train" in done else None
    return AblationRow(
        arm=arm.name, told=arm.told, n_rows=_take(done, "decontaminate", Splits).n_train,
        n_examples=_take(done, "encode", DatasetRef).n_train, n_steps=trained and trained.n_steps,
        trained=trained.digest if trained else "",
    )  # fmt: skip


def _leaks(done: dict[str, Artifact]) -> int:
    """Trained tickets that give a held-out item away."""
    values = _take(done, "contamination", CheckEvidence).values
    return int(sum(values.get(code) or 0 for code in REASONS))


def _take(done: dict[str, Artifact], step: str, kind: type[A]) -> A:
    found = done[step]
    if not isinstance(found, kind):
        raise TypeError(f"step {step} made {type(found).__name__}")
    return found
