"""A stage on a work pool: what the run's machine does before and after it, and what the worker does.

`flows/run/placement.py` says what is handed over and checks it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import Task

from flows.context.request import RunRequest, Stage
from flows.graph.execute import Run, RunEndedError, run_plainly
from flows.graph.prefect_runner import Placed, cancellation, run_nodes, run_on_pool
from flows.run.open_run import OpenRun
from flows.run.placement import (
    check_taken,
    first_missing,
    forget_handover,
    give_back,
    hand_over,
    made_first,
    open_placed,
    take_back,
)
from flows.schedule.deployed_run import check_bound
from flows.workspace.disk import named_disk_errors
from flows.workspace.guard import guard_process
from flows.workspace.settings import load_settings
from flows.workspace.temporary import temporary_files_below
from schemas.errors import SecurityError, ServiceError
from schemas.load import load_file
from tasks.compute.children import THIS_PROCESS


def needs_worker(opened: OpenRun, stage: Stage) -> bool:
    """Return whether the stage is placed, and there is anything to make on its pool."""
    return opened.context.spec.place.pool_of(stage) is not None and first_missing(opened, stage) is not None


def run_placed(step: Task[..., Any], opened: OpenRun, stage: Stage, ends: Mapping[str, str]) -> None:
    """Let a worker run the stage; nodes that need the ledger run here afterwards.

    Args:
        step: The task that makes one node.
        ends: Of the stages that this one uses, which Prefect shows as edges.

    Raises:
        ServiceError: TG0701, the stage failed there, or no worker came.
        RunEndedError: the run was cancelled.
    """
    context, run = opened.context, opened.run
    pool = context.spec.place.pool_of(stage) or ""
    if stage == "curate" and opened.graph_context.forgotten is not None:
        # Forgotten customers are found by keyed hashes, and the key does not leave this machine.
        run_plainly(run, targets=(opened.pipeline.curated.tables[0][1],))
    first = made_first(run.graph, stage)
    run_nodes(step, run, stage, only=lambda node: node.name in first)
    given, digest = hand_over(opened, stage)
    context.listeners.noted(f"{stage} runs on pool {pool}")
    part = RunRequest(run_id=context.run_id, handover=digest)
    placed = Placed(
        stage,
        pool,
        deployment=f"{stage}/{context.spec.name}",
        parameters={**ends, "request": part.model_dump(mode="json", exclude_defaults=True)},
        work=given.work,
        wait_for_worker_s=60 * context.spec.place.wait_for_worker,
        tags=(context.spec.name,),
    )
    state, parameters = run_on_pool(run, placed)
    if state.is_cancelled():
        raise RunEndedError("the run was cancelled")
    if not state.is_completed():
        raise ServiceError(
            f"stage {stage} failed on pool {pool!r}: {state.message or state.name}", code="TG0701",
            where=f"{context.spec.name}.place.{stage}", hint="see the flow run's page and the worker's log",
        )  # fmt: skip
    done = RunRequest.model_validate(parameters["request"])
    made = take_back(opened, stage, run_id=done.run_id or "", handover=done.handover or "")
    run_nodes(step, run, stage, only=lambda node: node.kind != "effect", quietly=True)
    check_taken(opened, made)
    run_nodes(step, run, stage)
    forget_handover(opened, stage, run_id=done.run_id or "")


@contextmanager
def run_of_worker(stage: Stage, pipeline: str, config: str, request: RunRequest) -> Iterator[Run]:
    """Open the run that this worker makes a stage for; what it made is given back at the end of the block.

    Raises:
        SecurityError: TG0840, another pipeline or file than the deployment's, or not what a run has handed over.
        TunegateError: as `open_placed`.
    """
    check_bound(pipeline, config, request)
    if request.run_id is None or request.handover is None:
        raise SecurityError(
            f"stage {stage} belongs to no run", code="TG0840", where=f"deployment {stage}/{pipeline}",
            hint="only a run starts this deployment, with the handover that it wrote",
        )  # fmt: skip
    guard_process()
    THIS_PROCESS.reopen()
    path = Path(config)
    spec, settings = load_file(path).find(pipeline), load_settings(path)
    with named_disk_errors(settings.home), temporary_files_below(settings.home, make=True):
        root = path.resolve().parent
        run = open_placed(spec, settings, root=root, run_id=request.run_id, stage=stage, handover=request.handover)
        with cancellation() as cancel:
            cancel.run = run
            yield run
        give_back(run, stage, request.run_id, request.handover)
