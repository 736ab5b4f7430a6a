"""Compare `train.budget` with what a training takes by past runs: for `tunegate plan`, and before a run trains.

Reads the ledger and the store; `tasks/train/launch.py` watches the budget while a training runs.
"""

from collections.abc import Iterable
from statistics import median

from flows.build import PipelineGraph, build
from flows.context.graph_context import GraphContext
from flows.graph.execute import Run
from flows.graph.plan import PlannedNode, plan
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.registry.state import StartingPoint, training_size
from flows.run.open_run import OpenRun
from flows.views.run_reader import spec_of
from schemas.artifacts import ModelRef, TrainedRef
from schemas.errors import TrainingError
from schemas.pipeline import PipelineSpec
from schemas.training import TrainSpec
from tasks.train.launch import train_model
from tasks.train.limits import Use, cards_of

PAST_RUNS = 100
PAST_TRAININGS = 5


def refuse_over_budget(opened: OpenRun) -> None:
    """Refuse a training that would not fit into its budget; called after curation, when its size is known.

    Raises:
        TrainingError: TG0406; nothing has been started.
    """
    context, given = opened.context, opened.graph_context
    spec = context.trained_spec
    if spec.train.budget is None:
        return
    # Another graph: planning notes in the run what it supposes.
    pipeline = build(spec, given)
    run = Run(pipeline.graph, context.store)
    planned = plan(run)
    seconds = training_seconds(spec, pipeline, run, planned, context.ledger, start=given.registry_state.start)
    reached = None if seconds is None else over_budget(spec, given, seconds)
    if reached is not None:
        raise TrainingError(
            f"the training would use about {reached} of train.budget, by the pace of past runs; it was not started",
            code="TG0406", where=f"{spec.name}.train.budget",
            hint="raise train.budget, or train less: train.max_steps, train.max_examples",
        )  # fmt: skip


def over_budget(spec: PipelineSpec, context: GraphContext, seconds: float) -> str | None:
    """The limit that trainings of this many seconds reach, as `12.0 of 10 minutes`; None if none."""
    use = Use(seconds, cards_of(spec.train.first(), local=context.place is None))
    return context.limits.exceeded((use,))


def training_seconds(
    spec: PipelineSpec,
    pipeline: PipelineGraph,
    run: Run,
    planned: Iterable[PlannedNode],
    ledger: Ledger,
    *,
    start: StartingPoint | None,
) -> float | None:
    """Seconds of the trainings that are known to run; None without past trainings of this base model and method.

    Of a ladder that is the first rung, of Optuna's trials the first. A training from `start` has fewer examples.
    """
    trainings = [each for each in planned if each.node.function is train_model and each.state in ("run", "maybe")]
    splits, model = run.find(pipeline.curated.clean), run.find(pipeline.tuned.first_model)
    if not trainings:
        return 0.0
    if splits is None or model is None:
        return None
    train = spec.train.first()
    pace = _seconds_per_example(ledger, run.store, spec.name, model, train)
    if pace is None:
        return None
    steps = optimiser_steps(training_size(train, splits.n_train, splits=splits, start=start), train)
    return len(trainings) * steps * _per_step(train) * pace


def optimiser_steps(n_train: int, train: TrainSpec) -> int:
    """Optimiser steps of a training on this many examples."""
    steps = -(-n_train // _per_step(train)) * train.epochs
    return min(steps, train.max_steps or steps)


def _per_step(train: TrainSpec) -> int:
    return train.batch_size * train.processes * train.gradient_accumulation_steps


def _seconds_per_example(
    ledger: Ledger, store: Store, pipeline: str, model: ModelRef, train: TrainSpec
) -> float | None:
    """Median of the last trainings of the same base model and method."""
    paces: list[float] = []
    for row in ledger.runs(limit=PAST_RUNS, pipeline=pipeline):
        for step in ledger.steps(row.run_id):
            if step.state != "done" or not step.step.startswith("train"):
                continue
            found = store.whole("train", step.key, TrainedRef)
            if found is None or found.external is not None:
                continue
            if (found.base_digest, found.method) == (model.digest, train.method):
                paces.append(step.seconds / (found.n_steps * _per_step(spec_of(row).train.first())))
        if len(paces) >= PAST_TRAININGS:
            break
    return median(paces) if paces else None
