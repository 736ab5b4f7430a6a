"""A data ablation: the same training on curated, raw and less curated tickets, judged on the same held-out items.

Every step uses the store, so that equal results are shared and a killed ablation continues. It reads the ledger (for
the previous split) and writes nothing there: no run, no candidate, no verdict.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from flows.build import PipelineGraph, build
from flows.context.graph_context import context_of
from flows.context.previous_run import PreviousRun, find_previous_run
from flows.effects.contract import judge_checks
from flows.graph.execute import NodeOutcome, Observer, Run, run_plainly
from flows.graph.graph import Node
from flows.graph.store import Store
from flows.ledger.open import open_ledger, open_store
from flows.registry.state import RegistryState
from flows.run.guarded_run import guarded_run
from flows.workspace.clock import present
from flows.workspace.disk import private_folder
from flows.workspace.settings import Settings
from schemas.artifacts import CheckEvidence, DatasetRef, Scores, TicketTable
from schemas.checks import ContaminationSpec
from schemas.choice import TrainSection
from schemas.curation import CurateSpec
from schemas.curation_steps import CurateStep, RedactStep, RuleStep
from schemas.errors import ConfigError, DataError, GateError
from schemas.pipeline import PipelineSpec
from schemas.template import template_columns
from tasks.assess.ablation import AblationRow, AblationTable, answer_of, judge_arm, shared_confidence
from tasks.assess.contamination import REASONS
from tasks.assess.judge import ChangeTest
from tasks.storage.files import sha256_json, write_json

CURATED = "curated"
Report = Callable[[str, Node, float, bool], None]
"""Called after each node with the arm, the node, its seconds, and whether it was reused."""


@dataclass(frozen=True)
class Arm:
    """One way of curating."""

    name: str
    description: str
    steps: tuple[CurateStep, ...]
    takes_all: bool = False
    """Every row, whatever `train.max_examples` says; else as many as the pipeline declares."""
    takes_k: bool = False
    """As many as the curated arm trained on."""


def arms_of(spec: PipelineSpec) -> tuple[Arm, ...]:
    """Return the arms: raw tickets, as many raw ones as curated, and the curation without each step but redaction.

    Raises:
        ConfigError: TG0159, no step is declared besides redaction.
    """
    steps = spec.curate.steps
    kept = tuple(step for step in steps if isinstance(step, RedactStep))
    removable = [step for step in steps if not isinstance(step, RedactStep)]
    if not removable:
        raise ConfigError(
            "no step is declared besides redaction, so there is nothing to leave out", code="TG0159",
            where=f"{spec.name}.curate.steps", hint="declare steps: docs/how-to/curate-tickets.md",
        )  # fmt: skip
    arms = [
        Arm("raw", "all redacted tickets, uncurated", kept, takes_all=True),
        Arm("raw-k", "the newest of those, as many as after curation", kept, takes_k=True),
    ]
    for step in removable:
        rest = tuple(each for each in steps if each is not step)
        label = step.label
        number = sum(1 for arm in arms if arm.name.startswith(f"without-{label}"))
        label = f"{label}_{number + 1}" if number else label
        arms.append(Arm(f"without-{label}", f"all steps but {label}", rest))
    return tuple(arms)


def learnable(steps: tuple[CurateStep, ...], spec: PipelineSpec) -> tuple[CurateStep, ...]:
    """Add a last rule that drops tickets no training can use: those without an answer."""
    columns = template_columns(spec.train.prompt.answer)
    keep = " or ".join(f"{name} is not null" for name in ("messages", *columns))
    return (*steps, RuleStep(uses="rule", name="has_an_answer", keep=keep))


def choose_arms(arms: Sequence[Arm], only: Sequence[str]) -> tuple[Arm, ...]:
    """Return the named arms; all if no name is given.

    Raises:
        ConfigError: TG0103, a name is not an arm.
    """
    names = [arm.name for arm in arms]
    for name in only:
        if name not in names:
            raise ConfigError(f"no arm {name!r}; arms: {', '.join(names)}", code="TG0103", where="--only")
    return tuple(arm for arm in arms if not only or arm.name in only)


@dataclass(frozen=True)
class _ArmGraph:
    """The graph of one arm, being run."""

    pipeline: PipelineGraph
    run: Run

    @property
    def dataset(self) -> DatasetRef:
        return self.run.result(cast(DatasetRef, self.pipeline.tuned.dataset))

    @property
    def scores(self) -> Scores:
        """Of the trained model on the held-out items."""
        return self.run.result(self.pipeline.assessed.arms.scores["tuned"])

    @property
    def n_leaks(self) -> int:
        """Train tickets that leak a held-out item."""
        values = self.run.result(self._contamination).values
        return int(sum(values.get(code) or 0 for code in REASONS))

    @property
    def _contamination(self) -> CheckEvidence:
        return self.pipeline.assessed.checks.evidence["contamination"]

    def make_data(self) -> None:
        """Make curation, token ids, the held-out items, and the check for train/test leakage."""
        run_plainly(self.run, targets=(self.pipeline.tuned.dataset, self._contamination))

    def make_model(self) -> None:
        run_plainly(self.run, targets=(self.pipeline.assessed.arms.scores["tuned"],))

    def row(self, arm: Arm) -> AblationRow:
        """Return the arm's row, as far as the graph has run."""
        trained = self.run.find(self.pipeline.tuned.trained)
        return AblationRow(
            arm=arm.name, description=arm.description, n_rows=self.run.result(self.pipeline.curated.clean).n_train,
            n_examples=self.dataset.n_train, n_steps=trained and trained.n_steps,
            trained=trained.digest if trained else "",
        )  # fmt: skip


class _Reporter(Observer):
    """Reports what an arm has made."""

    def __init__(self, arm: str, report: Report) -> None:
        self._arm, self._report = arm, report

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        if not outcome.skipped:
            self._report(self._arm, node, outcome.seconds, outcome.reused)


@dataclass
class Ablation:
    """The arms of one pipeline; `run` returns the table."""

    spec: PipelineSpec
    settings: Settings
    root: Path
    report: Report
    n_steps: int | None = None
    _store: Store = field(init=False)

    def __post_init__(self) -> None:
        self._store = open_store(self.settings)
        # One training, to its end: with early stopping or a selection, arms would train for different numbers of steps.
        first = self.spec.train.first().model_copy(update={"early_stopping": None})
        gates = self.spec.gates.model_copy(update={"interim": None})  # arms are compared on all items
        if gates.contamination is None:
            gates = gates.model_copy(update={"contamination": ContaminationSpec()})
        train = TrainSection.model_validate(first.model_dump())
        evaluate = self.spec.evaluate.model_copy(update={"arms": ()})  # only trained models are compared
        self.spec = self.spec.model_copy(update={"train": train, "gates": gates, "evaluate": evaluate})

    def run(self, arms: Sequence[Arm], metric: str) -> AblationTable:
        """Train and judge the curated arm, then each of the others.

        Raises:
            GateError: TG0623, train tickets of the curated arm leak held-out items.
            DataError: TG0222, a check of the curated tickets with severity `fail` did not pass.
            ConfigError: TG0103, the metric is not scored.
        """
        traits = next((each for each in self.spec.evaluate.traits() if each.name == metric), None)
        if traits is None:
            known = ", ".join(self.spec.evaluate.metric_names())
            raise ConfigError(f"{metric!r} is not scored; metrics: {known}", code="TG0103", where="--metric")
        curated = self._curated()
        scores, items = curated.scores, curated.run.result(curated.pipeline.assessed.items)
        n_steps, n_examples = curated.run.result(curated.pipeline.tuned.trained).n_steps, curated.dataset.n_train
        confidence = shared_confidence(self.spec.gates, len(arms))
        first = curated.row(Arm(CURATED, "as declared", ()))
        rows = [first.model_copy(update={"value": scores.means.get(metric)})]
        for arm in arms:
            row, done = self._other(arm, curated, k=n_examples, n_steps=n_steps)
            if row.gain is None and row.n_steps != n_steps:
                row = row.model_copy(update={"gain": "not judged", "reason": f"trained for {row.n_steps} steps"})
            elif row.gain is None and done is not None:
                test = ChangeTest(traits, confidence, f"arm {arm.name}")
                row = judge_arm(
                    row, curated=scores, arm=done.scores, test=test, items=items,
                    cluster_by=self.spec.gates.cluster_by,
                )  # fmt: skip
            rows.append(row)
        return AblationTable(
            pipeline=self.spec.name, metric=metric, n_items=items.n_items, n_steps=n_steps,
            seed=self.spec.train.seed, confidence=confidence, items=items.digest, rows=tuple(rows),
            answer=answer_of({row.arm: row for row in rows[1:]}),
        )  # fmt: skip

    def _curated(self) -> _ArmGraph:
        """Make the curated arm like a run would, from the last complete run's split; reuse its training if possible."""
        previous_run = find_previous_run(open_ledger(self.settings), self._store, self.spec.name)
        arm = self._graph(CURATED, self.spec, previous_run)
        checks = arm.pipeline.curated.checks
        if checks is not None:
            run_plainly(arm.run, targets=(checks,))
            judge_checks(self.spec.name, arm.run.result(checks), now=present())
        arm.make_data()
        if arm.n_leaks:
            raise GateError(
                f"{arm.n_leaks} train tickets of the curated arm leak held-out items, so no arm can be judged",
                code="TG0623", where=CURATED, hint="tighten curate.decontaminate; `tunegate run` names the tickets",
            )  # fmt: skip
        if self.n_steps is not None:
            arm = self._graph(CURATED, _with_steps(self.spec, self.n_steps, arm.dataset.n_train), previous_run)
        arm.make_model()
        return arm

    def _other(self, arm: Arm, curated: _ArmGraph, *, k: int, n_steps: int) -> tuple[AblationRow, _ArmGraph | None]:
        """Make another arm: other tickets, the same held-out items. Its split extends the curated one."""
        try:
            curate = CurateSpec.model_validate({**dict(self.spec.curate), "steps": learnable(arm.steps, self.spec)})
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            reason = f"cannot be made: {why}"
            return AblationRow(arm=arm.name, description=arm.description, gain="not judged", reason=reason), None
        split = self.spec.split.model_copy(update={"stable": True, "retire_after_days": None})
        limit = None if arm.takes_all else k if arm.takes_k else self.spec.train.max_examples
        train = self.spec.train.model_copy(update={"max_examples": limit})
        spec = self.spec.model_copy(update={"curate": curate, "split": split, "train": train})
        previous_run = PreviousRun(split=curated.run.result(curated.pipeline.curated.split))
        done = self._graph(arm.name, spec, previous_run, judged_on=curated)
        try:
            done.make_data()
        except DataError as error:
            return AblationRow(arm=arm.name, description=arm.description, gain="not judged", reason=error.message), done
        finally:
            self._forget_raw(done, curated)
        if done.n_leaks:
            reason = f"{done.n_leaks} of its train tickets leak held-out items"
            return done.row(arm).model_copy(update={"gain": "not judged", "reason": reason}), done
        with_steps = _with_steps(spec, n_steps, done.dataset.n_train)
        tuned = self._graph(arm.name, with_steps, previous_run, judged_on=curated, made=done)
        tuned.make_model()
        return tuned.row(arm), tuned

    def _graph(
        self,
        arm: str,
        spec: PipelineSpec,
        previous_run: PreviousRun,
        *,
        judged_on: _ArmGraph | None = None,
        made: _ArmGraph | None = None,
    ) -> _ArmGraph:
        """Declare the arm's graph.

        Args:
            judged_on: Use its held-out items, whatever the arm's own split holds out.
            made: Use its curation: raw texts that were removed are not made again.
        """
        context = context_of(
            spec, self.settings, root=self.root, registry_state=RegistryState(), previous_run=previous_run
        )
        pipeline = build(spec, context)
        run = guarded_run(pipeline.graph, spec, self._store, self.settings, observer=_Reporter(arm, self.report))
        if judged_on is not None:
            run.outcomes["items"] = judged_on.run.outcomes["items"]
        if made is not None:
            curation = {node.name for node in pipeline.graph.of_stage("curate")}
            run.outcomes |= {name: end for name, end in made.run.outcomes.items() if name in curation}
        return _ArmGraph(pipeline, run)

    def _forget_raw(self, arm: _ArmGraph, curated: _ArmGraph) -> None:
        """Remove what only this arm made before redaction: `curate.keep_raw_days` finds only results of runs."""
        nodes = arm.pipeline.graph.of_stage("curate")
        folders = [node.folder for node in nodes]
        shared = {end.key for end in curated.run.outcomes.values()}
        for node in nodes[: folders.index("redact")] if "redact" in folders else ():
            end = arm.run.outcomes.get(node.name)
            if end is not None and isinstance(end.result, TicketTable) and end.key not in shared:
                self._store.discard(node.folder, end.key)


def _with_steps(spec: PipelineSpec, n_steps: int, n_examples: int) -> PipelineSpec:
    """Train for this many optimiser steps, over as many epochs as they need."""
    from tasks.train.batches import steps_per_epoch

    train = spec.train
    each = steps_per_epoch(
        n_examples, batch_size=train.batch_size * train.processes, accumulation=train.gradient_accumulation_steps
    )
    changed = train.model_copy(update={"max_steps": n_steps, "epochs": -(-n_steps // each)})
    return spec.model_copy(update={"train": changed})


def keep_table(table: AblationTable, settings: Settings) -> Path:
    """Write the table under the digest of its content, so that the same table is the same file; returns its path."""
    content = table.model_dump(mode="json")
    place = private_folder(settings.home / "ablations" / table.pipeline) / f"{sha256_json(content)[:16]}.json"
    write_json(place, content)
    return place
