"""Run a pipeline of `pipelines.yaml` through curate, finetune, assess and release: five flows and a task of Prefect.

`tunegate run`, schedules, events, deployments and the workers of a placed stage all call these. Prefect shows, retries,
places and cancels. Reuse is the store's and truth the ledger's, so Prefect's cache and results stay off. Without a
server the same stages run in the same order (`flows/schedule/without_prefect.py`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow, runtime, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import refresh_global_settings_context
from prefect.exceptions import CancelledRun, TerminationSignal
from prefect.states import Cancelled, Completed, Failed
from prefect.tasks import exponential_backoff

from flows.context.outcome import Outcome
from flows.context.request import ANY_CASE, RunRequest, Stage
from flows.graph.execute import FIRST_DELAY_S, RETRIES, TERMINATED, NodeOutcome, Run, RunEndedError
from flows.graph.graph import Node
from flows.graph.prefect_runner import cancellation, is_transient, run_nodes, settle, tally
from flows.run.open_run import OPEN, OpenRun
from flows.run.placement import runs_on_worker
from flows.schedule.approval import suspend_if_waiting
from flows.schedule.deployed_run import EndedEarlyError, run_in_turn, wait_for_resource
from flows.schedule.flow_page import shown_on_page, tag_flow_run
from flows.schedule.placed_stage import needs_worker, run_of_worker, run_placed
from flows.schedule.without_prefect import run_without_prefect, with_prefect
from flows.schedule.worth import is_worth_running, is_worth_training
from flows.workspace.clock import present

FLOW = "tunegate"


def name_of_run() -> str:
    """Return `support-replies 2026-06-01 05:23`."""
    given = runtime.flow_run.get_parameters()
    as_of = given["request"].as_of if isinstance(given.get("request"), RunRequest) else None
    return f"{given.get('pipeline', FLOW)} {present():%Y-%m-%d %H:%M}{f' as of {as_of}' if as_of else ''}"


def name_of_stage() -> str:
    """Return `finetune support-replies`."""
    return f"{runtime.flow_run.get_flow_name()} {runtime.flow_run.get_parameters()['pipeline']}"


@flow(name=FLOW, flow_run_name=name_of_run, retries=0, persist_result=False)
def run_pipeline(pipeline: str, config: str = "pipelines.yaml", request: RunRequest = ANY_CASE) -> Any:
    """Bring fresh tickets to a verdict, and the champion alias to the candidate if it is earned.

    Args:
        pipeline: Name of the entry in pipelines.yaml.
        config: Path of pipelines.yaml.
        request: What the run should do.

    Raises:
        TunegateError: see schemas/errors.py; the ledger records the reason, the champion stays.

    In a deployment, pipeline and config are fixed (`flows/deployments.py`), and a candidate that waits for approval
    suspends the run (`flows/schedule/approval.py`).
    """
    is_open = OPEN.get() is not None
    try:
        run, outcome = run_once(pipeline, config, request)
        if outcome.resume is not None and not is_open:  # else whoever opened the run resumes the other
            run, outcome = run_once(pipeline, config, RunRequest(resume=outcome.resume, wait_s=request.wait_s))
    except EndedEarlyError as early:
        return Completed(name="SKIP", message=str(early)) if early.outcome is None else state_of(early.outcome)
    except (RunEndedError, CancelledRun) as error:
        return Cancelled(message=str(error))
    if run.context.is_deployed:
        suspend_if_waiting(outcome, Path(config))
    return state_of(outcome)


def run_once(pipeline: str, config: str, request: RunRequest) -> tuple[OpenRun, Outcome]:
    """Open a run, unless this process has done so, and run its stages."""
    with cancellation() as cancel, run_in_turn(pipeline, config, request) as run:
        cancel.run = run.run
        with shown_on_page(run):
            return run, with_prefect(run, lambda: run_stages(run, pipeline, config))


def run_stages(run: OpenRun, pipeline: str, config: str) -> None:
    """Run the stages that the request asks for. What a stage returns is the edge to those that use its results."""
    request = run.context.request
    given = (pipeline, config, request)

    def edge(end: str, stage: Stage) -> str:
        return end if getattr(end, "stage", "") in run.pipeline.graph.stages_above(stage) else ""

    if not is_worth_running(run):
        return
    curated = curate(*given)
    if not is_worth_training(run):
        return
    with wait_for_resource(run):
        tuned = finetune(*given, edge(curated, "finetune"))
        if not request.reaches("assess"):
            return
        assessed = assess(*given, edge(curated, "assess"), edge(tuned, "assess"))
        if not request.reaches("release"):
            return
        release(*given, edge(curated, "release"), edge(tuned, "release"), edge(assessed, "release"))


@flow(flow_run_name=name_of_stage, retries=0, persist_result=False)
def curate(pipeline: str, config: str, request: RunRequest) -> str:
    """Turn tickets into train, validation and test."""
    return run_stage("curate", pipeline, config, request)


@flow(flow_run_name=name_of_stage, retries=0, persist_result=False)
def finetune(pipeline: str, config: str, request: RunRequest, curated: str = "") -> str:
    """Train a candidate on them, once all that its verdict needs is prepared."""
    return run_stage("finetune", pipeline, config, request, curated=curated)


@flow(flow_run_name=name_of_stage, retries=0, persist_result=False)
def assess(pipeline: str, config: str, request: RunRequest, curated: str = "", tuned: str = "") -> str:
    """Let candidate, champion and baselines answer held-out items, and reach a verdict."""
    return run_stage("assess", pipeline, config, request, curated=curated, tuned=tuned)


@flow(flow_run_name=name_of_stage, retries=0, persist_result=False)
def release(
    pipeline: str, config: str, request: RunRequest, curated: str = "", tuned: str = "", assessed: str = ""
) -> str:
    """Record the verdict, and promote the candidate if it is earned."""
    return run_stage("release", pipeline, config, request, curated=curated, tuned=tuned, assessed=assessed)


def run_stage(stage: Stage, pipeline: str, config: str, request: RunRequest, **ends: str) -> str:
    """Run the stage's nodes as tasks of the calling flow; if it is placed, in the same flow on a worker of its pool."""
    try:
        run = OPEN.get()
        if run is None:
            with run_of_worker(stage, pipeline, config, request) as part:
                run_nodes(step, part, stage, only=lambda node: runs_on_worker(part.graph, node))
            return tally(part, stage)
        run.context.listeners.entered(stage)
        if needs_worker(run, stage):
            run_placed(step, run, stage, ends)
        else:
            run_nodes(step, run.run, stage)
        return tally(run.run, stage)
    except RunEndedError as error:
        return Cancelled(message=str(error))  # type: ignore[return-value]  # Prefect takes it for the flow's own state


@task(
    retries=RETRIES, retry_delay_seconds=exponential_backoff(FIRST_DELAY_S), retry_jitter_factor=0.5,
    retry_condition_fn=is_transient, cache_policy=NO_CACHE, persist_result=False,
)  # fmt: skip
def step(run: Run, node: Node, decided: NodeOutcome | None) -> State[Any]:
    """Make one node of the graph, unless the store has its result or it is left out."""
    return settle(run, node, decided)


def state_of(outcome: Outcome) -> State[Any]:
    """Return the flow's final state, named after the verdict. No retry follows: the same run has the same end."""
    if outcome.verdict in ("BLOCK", "ERROR"):
        return Failed(name=outcome.verdict, message=outcome.reason)
    if outcome.verdict == "HOLD":
        tag_flow_run("hold")
    name = "Completed" if outcome.verdict == "DONE" else outcome.verdict
    return Completed(name=name, message=outcome.reason, data=outcome)


def run_here(run: OpenRun, config: Path, connect: Callable[[], bool]) -> Outcome:
    """Run what this process has opened, for the command line: with Prefect if a server answers, else without it.

    Args:
        config: Path of pipelines.yaml, for the page.
        connect: Sets the variables of the Prefect server that the run is shown on; False for a run without Prefect.

    Raises:
        RunEndedError: it was cancelled in Prefect.
        TunegateError: it failed; the ledger records the reason, the champion stays.
    """
    if not connect():
        return run_without_prefect(run)
    refresh_global_settings_context()  # Prefect read its settings when it was imported
    context = run.context

    def in_prefect() -> None:
        with tags(str(context.root), context.spec.name):
            state: Any = run_pipeline(context.spec.name, str(config), context.request, return_state=True)
        if not context.is_complete:
            state.result()  # raises what ended the run

    try:
        return with_prefect(run, in_prefect)
    except TerminationSignal:
        raise SystemExit(TERMINATED) from None
