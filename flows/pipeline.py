"""Run one pipeline of `pipelines.yaml` through curate, finetune, assess and release.

`tunegate run`, Prefect deployments and `tunegate ops serve` all use this. The graph decides what is reused and what may
run in parallel; Prefect shows the flow, its sub-flows and tasks, their states, edges and artifacts.
"""

from __future__ import annotations

import re
import shutil
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from logging import Logger, LoggerAdapter
from pathlib import Path
from typing import Any, Literal

from prefect import Flow, flow, tags
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.context import refresh_global_settings_context
from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Completed

from flows.build import STAGES
from flows.champion.recover import recover_promotion
from flows.context.graph_context import trunks_of
from flows.context.listener import Listener
from flows.context.outcome import Holds, Outcome, outcome_of
from flows.context.run_context import RunContext
from flows.graph.execute import TERMINATED, RunEndedError, run_plainly
from flows.graph.execute import Outcome as NodeOutcome
from flows.graph.graph import Node
from flows.graph.prefect_runner import Cancellation, Placed, cancellation, run_nodes, run_on_pool, run_stage
from flows.ledger.rows import EventRow, RunRow
from flows.privacy.index import index_new_results
from flows.run.console import describe, gate_row
from flows.run.contract import hold_checks
from flows.run.faults import check_early
from flows.run.needed_columns import hold_columns
from flows.run.open_run import OpenRun, open_run
from flows.run.placement import (
    check_taken,
    first_missing,
    forget_handover,
    give_back,
    hand_over,
    made_first,
    open_placed,
    runs_on_worker,
    take_back,
)
from flows.run.publish import publish_snapshot
from flows.run.retention import forget_old_texts
from flows.run.training_budget import hold_budget
from flows.schedule.approval import resume_approval, suspend_if_waiting
from flows.schedule.deployed_run import (
    check_bound,
    check_resource,
    crashed_parameters,
    ended_original,
    hold_resource,
)
from flows.schedule.ticks import (
    QUEUE_WAIT_S,
    Tick,
    decide_after_curation,
    record_decision,
    skip_before_curation,
    skip_without_lock,
    tick_wait_s,
)
from flows.views.power import warn_of_weak_gate
from flows.views.report import report_folder
from flows.views.selection_report import report_choice
from flows.workspace.clock import present
from flows.workspace.disk import named_disk_errors
from flows.workspace.guard import guard_process
from flows.workspace.settings import Settings, load_settings
from flows.workspace.temporary import temporary_files_below
from schemas.artifacts import GateDecision
from schemas.errors import LockedError, ServiceError, TunegateError
from schemas.load import load_file
from schemas.pipeline import PipelineSpec
from schemas.ticks import Cause, Decision
from tasks.children import THIS_PROCESS
from tasks.curate.curation_warnings import curation_warnings

Stage = Literal["curate", "finetune", "assess", "release"]
OUR_PACKAGES = ("flows", "tasks", "schemas")
FLOW = "tunegate"


@dataclass(frozen=True)
class Request:
    """What a run should do."""

    again: bool = False
    """Decide again even if nothing has changed since the last verdict."""
    until: Stage = "release"
    """Last stage to run."""
    tick: Tick | None = None
    """What started the run, which then decides first whether it is worth running; None runs in any case."""
    wait_s: float = 0.0
    """Seconds to wait for another run of the pipeline."""
    as_of: str | None = None
    """Only tickets created by the end of this day, UTC; moves no alias."""
    given: tuple[str, ...] = ()
    """Settings of this run alone, to be recorded; the pipeline has them already."""
    deployed: bool = False
    """Whether a deployment started it, which then waits for `schedule.resource`."""


def run_name(spec: PipelineSpec) -> str:
    """Return the run's name in Prefect: `support-replies 2026-06-01 05:23`."""
    return f"{spec.name} {present():%Y-%m-%d %H:%M}"


def _name_of_run() -> str:
    return f"{flow_run.get_parameters().get('pipeline', FLOW)} {present():%Y-%m-%d %H:%M}"


@flow(name=FLOW, flow_run_name=_name_of_run)
def run_pipeline(
    pipeline: str,
    config: str = "pipelines.yaml",
    again: bool = False,
    until: Stage = "release",
    tick: Cause | None = None,
    crashed: str | None = None,
) -> Any:
    """Bring fresh tickets to a verdict, and the champion alias to the candidate if it is earned.

    Args:
        pipeline: Name of the entry in pipelines.yaml.
        config: Path of pipelines.yaml.
        again: Decide again even if nothing has changed since the last verdict.
        until: Last stage to run.
        tick: What started the run, which then decides first whether it is worth running; None runs in any case.
        crashed: The flow run that this one repeats, given by the automation; it is repeated once.

    Raises:
        TunegateError: see schemas/errors.py; the ledger records the reason, the champion stays.

    In a deployment, pipeline and config are fixed (`flows/deployments.py`), and a candidate that waits for approval
    suspends the run (`flows/schedule/approval.py`).
    """
    check_bound(pipeline, config)
    path = Path(config)
    spec, settings = load_file(path).get(pipeline), load_settings(path)
    resumed = resume_approval(spec, settings)
    if resumed is not None:
        return _state(resumed)
    try:
        with cancellation() as cancel:
            wait_s = 0.0
            if crashed is not None:
                # The automation gives a repeat the parameters of the deployment, not those of the crashed run.
                given = crashed_parameters(crashed)
                if given is None:
                    return _repeated(f"{crashed} is repeated by another run, or was a repeat itself")
                ended = ended_original(crashed)
                if ended is not None:
                    return _repeated(f"{crashed} had not crashed: it is {ended.name}")
                again, until, tick = given.get("again", again), given.get("until", until), given.get("tick", tick)
                wait_s = QUEUE_WAIT_S
            request = Request(again, until, _tick_of(tick), wait_s=wait_s, deployed=bool(deployment.get_id()))
            outcome = _run_in_turn(spec, settings, path.resolve().parent, request, cancel)
    except RunEndedError as error:
        return Cancelled(message=str(error))
    suspend_if_waiting(outcome, settings)
    return _state(outcome)


def _run_in_turn(spec: PipelineSpec, settings: Settings, root: Path, request: Request, cancel: Cancellation) -> Outcome:
    """Run the pipeline when no other run of it is in progress; a tick may skip instead."""
    tick = request.tick
    skipped = None if tick is None else skip_without_lock(spec, settings, tick)
    if skipped is not None:
        return skipped
    if request.deployed:
        check_resource(spec)
    wait_s = request.wait_s if tick is None else max(request.wait_s, tick_wait_s(spec))
    try:
        with open_run(spec, settings, root=root, wait_s=wait_s) as opened:
            return _run_in_flow(opened, request, cancel)
    except LockedError as error:
        # Another run may have started meanwhile.
        skipped = skip_without_lock(spec, settings, tick) if tick is not None and error.code == "TG0520" else None
        if skipped is None:
            raise
        return skipped


def run_here(
    spec: PipelineSpec,
    settings: Settings,
    *,
    root: Path,
    request: Request,
    listeners: Callable[[RunContext], tuple[Listener, ...]],
    connect: Callable[[RunContext], bool],
) -> tuple[Outcome, GateDecision | None]:
    """Run a pipeline for the command line; return how it ended and the gate's decision.

    If the Prefect server dies meanwhile, the run continues without it.

    Args:
        root: Folder of pipelines.yaml.
        listeners: Makes the listeners of the run.
        connect: Called once the source and the configuration are checked and nothing has started; sets the variables
            of the Prefect server that the run is shown on. False for a run without Prefect.

    Raises:
        RunEndedError: it was cancelled in Prefect.
        TunegateError: it failed; the ledger records the reason, the champion stays.
    """
    with open_run(
        spec, settings, root=root, wait_s=request.wait_s, as_of=request.as_of, given=request.given, listeners=listeners
    ) as opened:
        context = opened.context
        context.in_prefect = connect(context)
        refresh_global_settings_context()  # Prefect read its settings when it was imported
        outcome = _run_as_flow(opened, request) if context.in_prefect else None
        if outcome is None:
            outcome = context.outcome or _run(opened, request)
            context.outcome = outcome
        return outcome, opened.run.find(opened.pipeline.assessed.decision)


def _run_as_flow(opened: OpenRun, request: Request) -> Outcome | None:
    """Run it as a flow in this process; None if Prefect failed before the flow began or after its end."""
    spec, as_of = opened.context.spec, opened.context.as_of
    name = run_name(spec) if as_of is None else f"{run_name(spec)} as of {as_of}"
    failures: list[BaseException] = []

    def body(pipeline: str, until: str) -> State[Any]:  # noqa: ARG001 - shown in Prefect
        try:
            with cancellation() as cancel:
                return _state(_run_in_flow(opened, request, cancel))
        except RunEndedError as ended:
            failures.append(ended)
            return Cancelled(message=str(ended))
        except BaseException as error:
            failures.append(error)
            raise

    body.__name__ = "run_pipeline"
    as_flow: Flow[Any, Any] = Flow(body, name=FLOW, flow_run_name=name.replace("{", "{{").replace("}", "}}"))
    try:
        with tags(str(opened.context.root)):  # a user's server shows several projects
            as_flow(spec.name, request.until, return_state=True)
    except BaseException as error:
        if any(isinstance(each, TerminationSignal) for each in (error, *failures)):
            raise SystemExit(TERMINATED) from None
        if failures:
            raise failures[0] from None
        if not isinstance(error, Exception) or not is_of_prefect(error):
            raise
        _leave_prefect(opened.context)
        return None
    if failures:
        raise failures[0]
    return opened.context.outcome


class RunLog(Listener):
    """Writes what the console shows into the flow run's log: one line per step, warnings, the gate's reasons."""

    def __init__(self, log: LoggerAdapter[Any] | Logger) -> None:
        self._log = log

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        if node.kind != "act":
            origin = " (reused)" if outcome.reused else ""
            self._log.info("%s: %s%s", node.name, outcome.skipped or describe(outcome.result), origin)

    def noted(self, text: str) -> None:
        self._log.warning("%s", text)

    def entered(self, stage: str) -> None:
        self._log.info("stage %s", stage)


def _run_in_flow(opened: OpenRun, request: Request, cancel: Cancellation) -> Outcome:
    """Run the stages as sub-flows; once Prefect fails, without it.

    Raises:
        RunEndedError: the run was cancelled.
    """
    context = opened.context
    context.ledger.name_run(context.run_id, prefect_run_id=str(flow_run.get_id() or "") or None)
    log = RunLog(get_run_logger())
    context.listeners.members.append(log)
    cancel.run = opened.run
    try:
        context.outcome = _run(opened, request)
    except Exception as error:
        if not context.in_prefect or not is_of_prefect(error):
            raise
        context.listeners.members.remove(log)
        _leave_prefect(context)
        context.outcome = context.outcome or _run(opened, request)
    return context.outcome


def _leave_prefect(context: RunContext) -> None:
    if context.in_prefect:
        context.listeners.noted("Prefect no longer answers; the run continues without it")
    context.in_prefect = False


def is_of_prefect(error: Exception) -> bool:
    """Return whether the error was raised in Prefect's code, and not in ours that Prefect called."""
    # Without a server its client raises many types, some of them builtin (`RuntimeError: Failed to reach API`). Errors
    # of nodes are all TunegateErrors (`flows/graph/execute.py`).
    if isinstance(error, TunegateError | RunEndedError):
        return False
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = [module.partition(".")[0] for module in modules]  # the caller first
    ours = max((place for place, package in enumerate(packages) if package in OUR_PACKAGES), default=-1)
    return "prefect" in packages[ours + 1 :]


def _repeated(reason: str) -> State[Any]:
    """Make the final state of a flow run that finds nothing to repeat."""
    return Completed(name="SKIP", message=reason)


def _state(outcome: Outcome) -> State[Outcome]:
    """Make the flow's final state, named after the verdict."""
    name = "Completed" if outcome.verdict == "DONE" else outcome.verdict
    return Completed(name=name, message=outcome.reason, data=outcome)


def _tick_of(tick: Cause | None) -> Tick | None:
    """Make the tick, with the scheduled time from Prefect."""
    if tick is None:
        return None
    due = flow_run.get_scheduled_start_time() if tick == "schedule" and deployment.get_id() else None
    return Tick(tick, scheduled_for=due)


def _run(opened: OpenRun, request: Request) -> Outcome:
    context, tick, until = opened.context, request.tick, request.until
    # A look at the past decides again, from stored results: what held then is not what holds now.
    again = request.again or context.as_of is not None
    last = None if again or until != "release" else _last_valid_run(context)
    if last is not None:
        hold_checks(context, opened.graph_context.previous_run.checks if context.spec.checks else None)
        holds = _holds(context, last)
        ended = last.verdict if holds == last.verdict else f"{last.verdict}, and a person made its candidate champion"
        reason = f"nothing changed since run {last.run_id} ({ended}): same tickets, configuration and code"
        if _waiting(context, last):
            reason += f"; its candidate waits for approval: `tunegate model approve {last.run_id} --by NAME`"
        skip = Decision(run=False, code="unchanged", reason=reason)
        return _skip(context, skip if tick is None else record_decision(context, tick, skip), holds)
    early = None if tick is None else skip_before_curation(context, tick)
    if early is not None:
        return _skip(context, early)
    if until != "curate":
        check_early(context.spec, context.settings, root=context.root)

    ends: dict[str, State[Any]] = {}
    _run_stage(opened, "curate", ends)
    _show_funnel(opened)
    _warn_of_losses(opened)
    if tick is not None:
        decision = decide_after_curation(opened, tick)
        if not decision.run:
            return _skip(context, decision)
    recovered = None if again or until != "release" else recover_promotion(context)
    if recovered is not None:
        return recovered
    warn_of_weak_gate(context, opened.run.find(opened.pipeline.curated.clean))
    if until != "curate":
        hold_budget(opened)
    with hold_resource(opened, deployed=request.deployed):
        for stage in STAGES[1 : STAGES.index(until) + 1]:
            _run_stage(opened, stage, ends)
    if until != "release":
        return outcome_of(context.ledger, context.run_id, "DONE", f"ran until {until}")
    _show_report(context)
    if context.outcome is None:
        raise TypeError("the stage `release` reached no verdict")
    return context.outcome


def _run_stage(opened: OpenRun, stage: str, ends: dict[str, State[Any]]) -> None:
    """Run the stage's nodes, as a sub-flow of Prefect or on plain threads; then what belongs to its end."""
    context, run = opened.context, opened.run
    context.listeners.entered(stage)
    pool = context.spec.place.pool_of(stage)
    if pool is not None and _needs_worker(opened, stage, pool):
        ends[stage] = _run_placed(opened, stage, pool, _parents(opened, stage, ends))
    elif context.in_prefect:
        ends[stage] = run_stage(run, stage, _parents(opened, stage, ends), origin=context.ledger.made_by)
        if ends[stage].is_cancelled():
            raise RunEndedError("the run was cancelled")
    else:
        run_plainly(run, stage=stage)
    settings = context.settings
    match stage:
        case "curate":
            if context.as_of is None:  # people read the published tables as the present state
                publish_snapshot(opened)
            index_new_results(settings)
            forget_old_texts(context)
            # After publishing, so that the tables show what failed.
            hold_columns(opened)
            checks = opened.pipeline.curated.checks
            hold_checks(context, None if checks is None else run.result(checks))
        case "finetune":
            report_choice(context, run.find(opened.pipeline.tuned.choice))
            index_new_results(settings)  # the customers it learned from, while its examples exist
            shutil.rmtree(trunks_of(settings.home, context.spec.name), ignore_errors=True)
        case "assess":
            _show_gate(context, run.result(opened.pipeline.assessed.decision))


def _parents(opened: OpenRun, stage: str, ends: dict[str, State[Any]]) -> list[State[Any]]:
    """Return the final states of the stages that the stage depends on."""
    graph = opened.pipeline.graph
    above = {parent.stage for node in graph.of_stage(stage) for parent in graph.parents(node)} - {stage}
    return [ends[each] for each in STAGES if each in above and each in ends]


def _needs_worker(opened: OpenRun, stage: str, pool: str) -> bool:
    """Return whether there is anything to make on the pool.

    Raises:
        ServiceError: TG0701, Prefect does not answer: a placed stage runs only where it is placed.
    """
    if first_missing(opened, stage) is None:
        return False
    if not opened.context.in_prefect:
        raise ServiceError(
            f"stage {stage} is placed on pool {pool!r}, and Prefect does not answer", code="TG0701",
            where=f"{opened.context.spec.name}.place.{stage}", hint="start the server, or run without `place`",
        )  # fmt: skip
    return True


def _run_placed(opened: OpenRun, stage: str, pool: str, parents: list[State[Any]]) -> State[Any]:
    """Let a worker run the stage; nodes that need the ledger run here afterwards."""
    context, run = opened.context, opened.run
    if stage == "curate" and opened.graph_context.forgotten is not None:
        # Forgotten customers are found by keyed hashes, and the key does not leave this machine.
        run_plainly(run, targets=(opened.pipeline.curated.tables[0][1],))
    first = made_first(run.graph, stage)
    here = run_nodes(run, stage, origin=context.ledger.made_by, only=lambda node: node.name in first)
    if here.is_cancelled():
        raise RunEndedError("the run was cancelled")
    given, digest = hand_over(opened, stage)
    context.listeners.noted(f"{stage} runs on pool {pool}")
    placed = Placed(
        stage,
        pool,
        deployment=f"{stage}/{context.spec.name}",
        parameters={"run_id": context.run_id, "handover": digest},
        work=given.work,
        wait_for_worker_s=60 * context.spec.place.wait_for_worker,
    )
    state, did = run_on_pool(run, placed, parents)
    if state.is_cancelled():
        raise RunEndedError("the run was cancelled")
    if not state.is_completed():
        raise ServiceError(
            f"stage {stage} failed on pool {pool!r}: {state.message or state.name}", code="TG0701",
            where=f"{context.spec.name}.place.{stage}", hint="see the flow run's page and the worker's log",
        )  # fmt: skip
    made = take_back(opened, stage, run_id=did["run_id"], handover=did["handover"])
    here = run_nodes(run, stage, origin=context.ledger.made_by, quietly=True)
    if here.is_cancelled():
        raise RunEndedError("the run was cancelled")
    check_taken(opened, made)
    forget_handover(opened, stage, run_id=did["run_id"])
    return state


def _stage_flow(stage: str) -> Flow[Any, Any]:
    """Make the flow of a placed stage, which a worker finds as `flows.pipeline.place_curate`."""

    def place(pipeline: str, config: str, run_id: str, handover: str) -> Any:
        """Make the missing results of this stage. Refused for another pipeline or file than the deployment's."""
        check_bound(pipeline, config)
        guard_process()
        THIS_PROCESS.reopen()
        path = Path(config)
        spec, settings = load_file(path).get(pipeline), load_settings(path)
        with named_disk_errors(settings.home), temporary_files_below(settings.home, make=True):
            root = path.resolve().parent
            run = open_placed(spec, settings, root=root, run_id=run_id, stage=stage, handover=handover)
            with cancellation() as cancel:
                cancel.run = run
                state = run_nodes(run, stage, origin=lambda _key: "", only=lambda node: runs_on_worker(run.graph, node))
            if state.is_completed():
                give_back(run, stage, run_id, handover)
        return state

    place.__name__ = place.__qualname__ = f"place_{stage}"
    return Flow(place, name=stage, flow_run_name=stage, persist_result=False)


place_curate, place_finetune, place_assess, place_release = map(_stage_flow, STAGES)
STAGE_FLOWS = {"curate": place_curate, "finetune": place_finetune, "assess": place_assess, "release": place_release}


def _skip(context: RunContext, decision: Decision, holds: Holds | None = None) -> Outcome:
    if context.in_prefect:
        get_run_logger().info("SKIP: %s", decision.reason)
    return outcome_of(context.ledger, context.run_id, "SKIP", decision.reason, holds=holds)


def _last_valid_run(context: RunContext) -> RunRow | None:
    """Return the last run with a verdict on the same inputs, if its verdict would be the same today.

    A verdict against another champion does not count: after a rollback, say, a blocked candidate is judged again.
    """
    ledger, champion = context.ledger, context.registry_state.champion
    last = ledger.last_verdict(context.spec.name, context.input_digest)
    if last is None:
        return None
    if champion is not None and champion.run_id == last.run_id:
        return last
    register = context.spec.registry
    for event in _waiting(context, last):
        if not ledger.held(register.name, event.to_version, approval=register.approval == "required"):
            return None  # its cooldown is over
    key = ledger.keys_of(last.run_id).get("gate")
    decision = context.store.find("gate", key, GateDecision) if key else None
    today = champion.version if champion else None
    return last if decision is not None and decision.champion_version == today else None


def _holds(context: RunContext, last: RunRow) -> Holds:
    """Return the verdict that still holds: PROMOTE if its candidate is champion, by the gate or by a person."""
    if last.verdict is None or last.verdict == "ERROR":
        raise TypeError(f"run {last.run_id} has no verdict that could hold")
    champion = context.registry_state.champion
    return "PROMOTE" if champion is not None and champion.run_id == last.run_id else last.verdict


def _waiting(context: RunContext, last: RunRow) -> list[EventRow]:
    return [event for event in context.ledger.waiting(context.spec.registry.name) if event.run_id == last.run_id]


def _show_funnel(opened: OpenRun) -> None:
    if not opened.context.in_prefect:
        return
    nodes = opened.pipeline.graph.of_stage("curate")
    ends = {node.name: opened.run.outcomes[node.name] for node in nodes if node.name in opened.run.outcomes}
    rows = [{"step": name, "result": describe(end.result)} for name, end in ends.items() if not end.skipped]
    key = _artifact_key(opened.context, "funnel")
    create_table_artifact(key=key, table=rows, description="Rows kept and removed by each step")


def _warn_of_losses(opened: OpenRun) -> None:
    """Note the rules that drop many rows, and what the split loses."""
    curated, context = opened.pipeline.curated, opened.context
    split = opened.run.find(curated.split)
    tables = [(name, found) for name, table in curated.tables if (found := opened.run.find(table)) is not None]
    if split is not None:
        for warning in curation_warnings(tables, split, context.spec.split, pipeline=context.spec.name):
            context.listeners.noted(warning)


def _show_gate(context: RunContext, decision: GateDecision) -> None:
    if context.in_prefect:
        rows = [gate_row(finding) for finding in decision.findings]
        create_table_artifact(key=_artifact_key(context, "gate"), table=rows, description=decision.reason)
        markdown = f"# {decision.verdict}\n\n{decision.reason}\n"
        create_markdown_artifact(key=_artifact_key(context, "verdict"), markdown=markdown)
        get_run_logger().info("%s: %s", decision.verdict, decision.reason)


def _show_report(context: RunContext) -> None:
    if not context.in_prefect:
        return
    folder = report_folder(context.settings.home, context.run_id)
    with suppress(OSError):  # without a report there is nothing to show
        text = (folder / "report.md").read_text(encoding="utf-8")
        markdown = f"{text}\nPage: `{folder / 'report.html'}`\n"
        create_markdown_artifact(key=_artifact_key(context, "report"), markdown=markdown)


def _artifact_key(context: RunContext, what: str) -> str:
    # Projects share the server: the ledger's id distinguishes pipelines with equal names.
    project = (context.ledger.identity() or "")[:6]
    # Prefect allows only lower-case letters, digits and dashes.
    return re.sub(r"[^a-z0-9-]+", "-", f"{context.spec.name}-{what}-{project}".lower()).strip("-")
