"""One run of one pipeline: opened under the pipeline's lock, recorded in the ledger, closed with its outcome."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from flows.build import PipelineGraph, build_run, code_of
from flows.context.as_of import check_as_of, end_of
from flows.context.graph_context import GraphContext, context_of
from flows.context.ingest import ingested_source
from flows.context.listener import Listener
from flows.context.outcome import Holds, Outcome
from flows.context.previous_run import find_previous_run
from flows.context.request import ANY_CASE, RunRequest
from flows.context.run_context import RunContext, new_run_id
from flows.graph.execute import CancelSignal, NodeOutcome, Run, RunEndedError
from flows.graph.graph import Node
from flows.graph.keys import digest_of
from flows.graph.store import Obtained
from flows.ledger.open import open_ledger, open_store
from flows.ledger.runs import SeenTickets
from flows.privacy.forget import apply_tombstones
from flows.records.run_picture import keep_picture, picture_now
from flows.records.timings import TimingsObserver
from flows.registry.held import find_held
from flows.registry.owner import check_registry
from flows.registry.state import describe_champion, describe_start, record_held_out, registry_state_of
from flows.run.faults import check_libraries
from flows.run.guarded_run import guarded_run
from flows.run.notify import notify_end
from flows.workspace.disk import named_disk_errors
from flows.workspace.guard import guard_process
from flows.workspace.ray_cluster import check_cluster
from flows.workspace.settings import Settings
from flows.workspace.temporary import temporary_files_below
from schemas.artifacts import Artifact, EvalSet, GateDecision
from schemas.errors import ConfigError, TunegateError
from schemas.pipeline import DataPipeline, model_of, with_model
from schemas.secrets import masked
from tasks.compute.children import THIS_PROCESS
from tasks.monitor.arrivals import newest_time


@dataclass(frozen=True)
class OpenRun:
    """A run in progress: its context, its graph, and the graph's execution."""

    context: RunContext
    graph_context: GraphContext
    pipeline: PipelineGraph
    run: Run

    def decision(self) -> GateDecision | None:
        """Return the gate's decision; None if there is none yet, or no gate."""
        return None if self.pipeline.decision is None else self.run.find(self.pipeline.decision)


class RunObserver(TimingsObserver):
    """Records each node's outcome in the ledger and passes it on to the run's listeners."""

    def __init__(self, context: RunContext) -> None:
        super().__init__(context.settings)
        self._context = context

    def started(self, node: Node) -> None:
        super().started(node)
        self._context.listeners.started(node)

    def progressed(self, node: Node, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        super().progressed(node, done, total, unit, figures)
        self._context.listeners.progressed(node, done, total, unit, figures)

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        super().ended(node, outcome)
        context = self._context
        if node.kind == "step" and not outcome.skipped:
            context.ledger.record_step(context.run_id, node.id, _obtained(outcome))
            if node.folder == "items" and isinstance(outcome.result, EvalSet):
                record_held_out(context.ledger, outcome.result)
        context.listeners.ended(node, outcome)

    def failed(self, node: Node, error: BaseException) -> None:
        context = self._context
        context.ledger.record_failure(context.run_id, node.id, error)
        if isinstance(error, TunegateError) and error.code in node.tolerates:
            context.listeners.noted(f"{node.name} has no result: {error.code}: {error.message}")

    def became(self, name: str, node: Node, outcome: NodeOutcome) -> None:
        if not outcome.skipped:
            reused = NodeOutcome(outcome.result, outcome.key, reused=True)
            self._context.ledger.record_step(self._context.run_id, name, _obtained(reused))


def _obtained(outcome: NodeOutcome) -> Obtained[Artifact]:
    return Obtained(outcome.result, outcome.key, reused=outcome.reused, seconds=outcome.seconds)


OPEN: ContextVar[OpenRun | None] = ContextVar("open_run", default=None)
"""The run that this process has open, for the flows of its stages."""


@contextmanager
def open_run(
    spec: DataPipeline,
    settings: Settings,
    request: RunRequest = ANY_CASE,
    *,
    root: Path,
    listeners: Callable[[RunContext], tuple[Listener, ...]] = lambda _: (),
) -> Iterator[OpenRun]:
    """Take the pipeline's lock and record the run in the ledger; on exit, record how it ended.

    Args:
        request: What it should do; `spec` has the settings that it gives.
        root: Folder of pipelines.yaml.
        listeners: Makes the listeners of the run, which are notified from the ingestion of its source on.

    Raises:
        ConfigError: TG0119, `TUNEGATE_STORE` is set; TG0112, see `check_libraries`.
        ConfigError: TG0103, `request.as_of` is no day that is over; TG0139, a stage of a run that is resumed is placed.
        GateError: see `find_held`, for `request.resume`.
        StorageError: TG0568, and ServiceError: TG0723, see `check_cluster`.
        StorageError: TG0580, the ledger was altered; TG0581, it is not the one that was here, or
            MLflow's registered model belongs to another ledger.
        LockedError: another run holds the pipeline for longer than `request.wait_s` seconds.
        SecurityError: TG0830, there are tombstones but not their key: forgotten customers would come back.
    """
    guard_process()  # Prefect may have started this process
    check_libraries(spec, request)
    as_of = None if request.as_of is None else check_as_of(request.as_of)
    if request.resume is not None and spec.place.pools():
        raise ConfigError(
            "a stage that runs on a work pool declares its own graph, so it cannot judge an earlier candidate again",
            code="TG0139", where=f"{spec.name}.place", hint="remove `place` for this run",
        )  # fmt: skip
    THIS_PROCESS.reopen()  # an earlier run of this process may have been cancelled
    check_cluster(spec, settings)
    if settings.shared_store is not None:
        raise ConfigError(
            "a run stores its results in its own home", code="TG0119", where="TUNEGATE_STORE",
            hint="unset it: it is for workers, which have no ledger",
        )  # fmt: skip
    ledger, run_id = open_ledger(settings), new_run_id()
    lock = ledger.pipeline_lock(spec.name, wait_s=request.wait_s, run_id=run_id)
    with named_disk_errors(settings.home), lock, temporary_files_below(settings.home, make=True):
        ledger.check()
        apply_tombstones(settings)  # a restored backup may have brought back forgotten customers
        registry_state = registry_state_of(spec, ledger, before=as_of and end_of(as_of))
        store = open_store(settings)
        held = None
        if request.resume is not None:
            held = find_held(with_model(spec), ledger.run(request.resume), ledger, store, registry_state)
        context = RunContext(spec, settings, root, run_id, store, ledger, registry_state, request, held=held)
        context.listeners.members += listeners(context)
        for describe in (describe_start, describe_champion) if held is None else (describe_champion,):
            if (note := describe(spec, registry_state)) is not None:
                context.listeners.noted(note)
        ledger.mark_interrupted()
        if context.registry_state.champion is None and as_of is None:  # perhaps the ledger has lost it
            check_registry(spec, settings, ledger)
        opened: list[OpenRun] = []
        try:
            with _recorded(context, opened), named_disk_errors(settings.home):
                token = OPEN.set(opened[0])
                try:
                    yield opened[0]
                finally:
                    OPEN.reset(token)
        finally:
            keep_picture(context)
            if as_of is None:
                notify_end(context, opened[0].decision() if opened else None)


def _opened(context: RunContext) -> OpenRun:
    """Declare the graph, for the source as it is now."""
    spec, settings = context.spec, context.settings
    as_of = context.request.as_of
    previous_run = find_previous_run(context.ledger, context.store, spec.name, before=as_of and end_of(as_of))
    graph_context = context_of(
        spec, settings, root=context.root, registry_state=context.registry_state, previous_run=previous_run, as_of=as_of
    )
    graph_context = replace(graph_context, limits_examples=context.request.limits_examples, held=context.held)
    pipeline, graph_context, context.input_digest = build_run(spec, graph_context, context.ledger)
    context.labels_digest = graph_context.labels_digest
    context.code_digest = digest_of(code_of(pipeline.graph.nodes.values()))
    context.ledger.set_digests(
        context.run_id, inputs=context.input_digest, labels=context.labels_digest, code=context.code_digest,
        terms=context.registry_state.terms,
    )  # fmt: skip
    run = guarded_run(pipeline.graph, spec, context.store, settings, observer=RunObserver(context), live=context)
    run.made_by = context.ledger.made_by
    context.picture = lambda: picture_now(context, run)
    return OpenRun(context, graph_context, pipeline, run)


@contextmanager
def _recorded(context: RunContext, opened: list[OpenRun]) -> Iterator[None]:
    ledger, run_id, spec, request = context.ledger, context.run_id, context.spec, context.request
    ledger.start_run(
        run_id,
        pipeline=spec.name,
        model_name=model_of(spec),
        config_json=masked(spec.model_dump_json(by_alias=True)),
        as_of=request.as_of,
        given=tuple(map(masked, request.given)),
    )
    try:
        with ingested_source(context):
            opened.append(_opened(context))
            yield
    except TunegateError as error:
        reason = f"{error.code}: {error.message}"
        ledger.finish_run(run_id, status="FAILED", reason=reason, exit_code=error.exit_code)
        raise
    except (RunEndedError, CancelSignal):
        ledger.finish_run(run_id, status="INTERRUPTED", reason="cancelled", exit_code=143)
        raise
    except Exception as error:  # its text may contain ticket text
        if opened and opened[0].run.cancelled.is_set():  # Prefect has an exception of its own for it
            ledger.finish_run(run_id, status="INTERRUPTED", reason="cancelled", exit_code=143)
            raise
        ledger.finish_run(run_id, status="FAILED", reason=type(error).__name__, exit_code=1)
        raise
    except BaseException as error:  # Ctrl-C, SIGTERM
        code = 130 if isinstance(error, KeyboardInterrupt) else 143
        ledger.finish_run(run_id, status="INTERRUPTED", reason=type(error).__name__, exit_code=code)
        raise
    outcome = context.outcome
    if outcome is None:
        ledger.finish_run(run_id, status="DONE", reason="a single stage was run", exit_code=0)
        return
    ledger.finish_run(
        run_id,
        status="SKIPPED" if outcome.verdict == "SKIP" else "DONE",
        verdict=None if outcome.verdict == "SKIP" or outcome.verdict == "DONE" else outcome.verdict,
        reason=outcome.reason,
        exit_code=outcome.exit_code,
        # The pipeline's mark is the newest ticket that was judged: neither a look at the past nor a run with other
        # settings may move it, or the next scheduled run would find nothing new.
        seen=_seen(opened[0]) if _is_final(context, outcome) and not (request.as_of or request.given) else None,
    )


def _is_final(context: RunContext, outcome: Outcome) -> bool:
    """Return whether the tickets of the run are known from now on: to a verdict, or to a whole run of data alone."""
    if context.held is not None and not outcome.waits and outcome.verdict not in ("PROMOTE", "UNCOMPARED"):
        return False  # tickets that arrived since its training have trained no candidate yet
    return outcome.verdict in get_args(Holds) or (outcome.verdict == "DONE" and context.is_whole)


def _seen(opened: OpenRun) -> SeenTickets | None:
    """Return what the verdict was about: the pipeline's new mark."""
    curated = opened.pipeline.curated
    splits, warehouse = opened.run.find(curated.clean), opened.run.find(curated.warehouse)
    if splits is None or warehouse is None:
        return None
    return SeenTickets(warehouse.snapshot_id, newest_time(splits), splits.n_train + splits.n_validation + splits.n_test)
