"""The one file that uses Prefect's engine: a stage is a sub-flow, a node is a task run with its real edges.

Prefect shows, retries and cancels. Only the store decides what is reused: Prefect's cache and results stay off.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import RunType, State, StateDetails
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Cancelled, Cancelling, Completed, Pending
from prefect.tasks import exponential_backoff

from flows.graph.execute import FIRST_DELAY_S, RETRIES, Outcome, Run, RunEndedError, drive, make_safely
from flows.graph.graph import Node
from schemas.errors import ServiceError, TunegateError

POLL_S = 2.0
RESTART_S = 120.0
"""A server that restarts, or is busy, answers by then."""
SETTLE_S = 0.4
"""Pause before a sub-flow. The server is still writing the previous one's task events; a request that meets SQLite's
lock gets a 503 and is sent again after 2 s."""
Origin = Callable[[str], str]
"""Key -> the run that made the result."""


def run_stage(run: Run, stage: str, parents: list[State[Any]], *, origin: Origin) -> State[Any]:
    """Run the stage as a sub-flow of the calling flow, with edges from the stages that it depends on; return its state.

    Raises:
        TunegateError: a node failed.
        RunEndedError: the run was cancelled.
        Exception: Prefect failed; finished results are in the store.
    """
    failures: list[BaseException] = []

    def body() -> State[Any]:
        try:
            return run_nodes(run, stage, origin=origin)
        except BaseException as error:
            failures.append(error)
            raise

    body.__name__ = stage
    flow = Flow(body, name=stage, flow_run_name=stage, persist_result=False, validate_parameters=False)
    # Prefect turns a state's `task_run_id` into an edge. For a sub-flow that is not the id of its node in Prefect's
    # graph, which is its flow run's. `data` is set because a state without it counts as one whose result is lost.
    edges: list[Any] = [
        Completed(data=True, state_details=StateDetails(task_run_id=parent.state_details.flow_run_id))
        for parent in parents
    ]
    time.sleep(SETTLE_S if parents else 0.0)
    try:
        state: State[Any] = flow(wait_for=edges, return_state=True)
    except BaseException as error:
        raise (failures[0] if failures else error) from None
    if failures:
        raise failures[0]
    return state


def run_nodes(
    run: Run, stage: str, *, origin: Origin, only: Callable[[Node], bool] = lambda _node: True, quietly: bool = False
) -> State[Any]:
    """Run the stage's nodes as tasks of the calling flow; return the state that the flow should return.

    Args:
        only: Only these nodes.
        quietly: Create no task for nodes that are already decided.
    """
    futures: dict[str, PrefectFuture[Any]] = {}

    def submit(node: Node, outcome: Outcome | None) -> Any:
        if quietly and outcome is not None:
            done: Future[Outcome] = Future()
            done.set_result(outcome)
            return done
        parents = [futures[parent.name] for parent in run.graph.parents(node) if parent.name in futures]
        task = _task(node, lambda: _settle(run, node, outcome, origin))
        futures[node.name] = task.submit(wait_for=parents, return_state=False)
        return futures[node.name]

    try:
        drive(run, submit, stage=stage, only=only)
    except RunEndedError as error:
        return Cancelled(message=str(error))
    except Exception:
        raise
    except BaseException:  # Ctrl-C, SIGTERM: wait for running nodes, so that checkpoints are complete
        run.cancel()
        for future in futures.values():
            with suppress(Exception):
                future.wait()
        raise
    return Completed(message=tally(run, stage))


@dataclass(frozen=True)
class Placed:
    """A stage that runs on a work pool."""

    stage: str
    pool: str
    deployment: str
    """`FLOW/DEPLOYMENT`."""
    parameters: dict[str, Any]
    """Only references: Prefect stores and shows them."""
    work: str
    """Digest of the work: a run joins the flow run of a dead run that does the same."""
    wait_for_worker_s: float


def run_on_pool(run: Run, placed: Placed, parents: list[State[Any]]) -> tuple[State[Any], dict[str, Any]]:
    """Run the stage on a worker of the pool, as a flow run with edges from the stages that it depends on.

    If its process or machine is lost, a new flow run continues from what is in the store, up to `RETRIES` times.
    Returns the flow run's state and parameters; those of a dead run's, if that was joined.

    Raises:
        ServiceError: TG0701, there is no such deployment, no worker came online in time, or Prefect failed.
        RunEndedError: the run was cancelled.
    """
    try:
        with get_client(sync_client=True) as client:
            return _run_and_retry(client, placed, parents, run)
    except (TunegateError, RunEndedError):
        raise
    except Exception as error:
        raise ServiceError(
            f"Prefect failed while stage {placed.stage} was on pool {placed.pool!r}: {type(error).__name__}",
            code="TG0701", where=f"place.{placed.stage}", hint="run again: it joins the stage if that is still running",
        ) from error  # fmt: skip


def _run_and_retry(
    client: SyncPrefectClient, placed: Placed, parents: list[State[Any]], run: Run
) -> tuple[State[Any], dict[str, Any]]:
    attempt = 0
    while True:
        child = _join_or_create(client, placed, parents, attempt)
        try:
            state = _await(client, child, placed, run)
        except BaseException:  # Ctrl-C and SIGTERM as well: nothing else would stop it
            with suppress(Exception):
                client.set_flow_run_state(child, Cancelling(message="the run that started it was ended"))
            raise
        attempt += 1
        if not state.is_crashed() or attempt > RETRIES:
            return state, client.read_flow_run(child).parameters


def _join_or_create(client: SyncPrefectClient, placed: Placed, parents: list[State[Any]], attempt: int) -> UUID:
    tag = f"work:{placed.work[:32]}"
    alive = {"tags": {"all_": [tag]}, "state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING"]}}}
    for child in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(alive)):
        return child.id  # of a dead run; two of them would write to one checkpoint
    try:
        deployment = client.read_deployment_by_name(placed.deployment)
    except ObjectNotFound:
        raise ServiceError(
            f"stage {placed.stage} is placed on pool {placed.pool!r}, and the server has no deployment of it",
            code="TG0701", where=placed.deployment, hint="`tunegate ops deploy` creates it",
        ) from None  # fmt: skip
    # Like Prefect's own `run_deployment`, which takes edges only from parameters and waits forever.
    edges: list[Any] = [parent.state_details.to_run_result(RunType.FLOW_RUN) for parent in parents]
    tracking = client.create_task_run(
        Task(lambda: None, name=placed.stage),
        flow_run_id=UUID(flow_run.get_id()),
        dynamic_key=f"{placed.stage}-{flow_run.get_run_count()}-{attempt}",
        task_inputs={"wait_for": edges},
        state=Pending(),
    )
    return client.create_flow_run_from_deployment(
        deployment.id,
        name=placed.stage,
        parameters=placed.parameters,
        tags=[tag],
        parent_task_run_id=tracking.id,
        idempotency_key=str(tracking.id),
    ).id


def _await(client: SyncPrefectClient, child: UUID, placed: Placed, run: Run) -> State[Any]:
    deadline = time.monotonic() + placed.wait_for_worker_s
    while not (state := _state_of(client, child)).is_final():
        if run.cancelled.wait(POLL_S):
            raise RunEndedError("the run was cancelled")
        waits = state.is_scheduled() or state.is_pending()
        if waits and time.monotonic() > deadline and client.read_work_pool(placed.pool).status != "READY":
            raise ServiceError(
                f"no worker of pool {placed.pool!r} came online within {placed.wait_for_worker_s / 60:g} minutes",
                code="TG0701", where=f"place.{placed.stage}",
                hint=f"start one: `prefect worker start --pool {placed.pool}`",
            )  # fmt: skip
    return state


def _state_of(client: SyncPrefectClient, child: UUID) -> State[Any]:
    """Return the flow run's state; retry for two minutes if the server restarts or is busy."""
    deadline = time.monotonic() + RESTART_S
    while True:
        try:
            return client.read_flow_run(child).state or Pending()
        except ObjectNotFound:
            raise
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def _settle(run: Run, node: Node, outcome: Outcome | None, origin: Origin) -> State[Outcome]:
    """Make the final state of the node's task when it ends, since Prefect drops a state with an older time."""
    try:
        outcome = outcome or make_safely(run, node)
    except (RunEndedError, TunegateError) as error:
        if not run.cancelled.is_set():
            raise
        return Cancelled(message=str(error))
    if outcome.skipped:
        return Completed(name="Skipped", message=outcome.skipped, data=outcome)
    if outcome.reused:
        maker = origin(outcome.key)
        message = f"made by run {maker}" if maker else "made by an earlier run"
        return Completed(name="Cached", message=message, data=outcome)
    return Completed(message=f"{outcome.seconds:.1f} s", data=outcome)


def _task(node: Node, settle: Callable[[], State[Any]]) -> Task[[], Any]:
    # A task without parameters: Prefect takes equal strings among them for edges (it compares by identity).
    return Task(
        settle,
        name=node.name,
        task_run_name=lambda: node.name,  # a string would go through str.format
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=RETRIES if node.kind == "step" else 0,
        retry_delay_seconds=exponential_backoff(FIRST_DELAY_S),
        retry_jitter_factor=0.5,
        retry_condition_fn=is_transient,
    )


def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Return whether the error may pass (a service that does not answer, a process that was killed)."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TunegateError) and error.transient


def tally(run: Run, stage: str) -> str:
    """Return `2 made, 1 reused, 1 skipped`."""
    ends = [run.outcomes[node.name] for node in run.graph.of_stage(stage) if node.name in run.outcomes]
    n_skipped = sum(bool(each.skipped) for each in ends)
    n_reused = sum(each.reused for each in ends)
    return f"{len(ends) - n_reused - n_skipped} made, {n_reused} reused, {n_skipped} skipped"


@contextmanager
def no_heartbeats() -> Iterator[None]:
    """Start no heartbeats in the sub-flows of the block; the calling flow keeps its own."""
    # Stopping the heartbeat thread takes a second in each sub-flow, and building the settings 0.15 s of CPU.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@contextmanager
def cancellation(on_cancel: Callable[[], None]) -> Iterator[None]:
    """Call `on_cancel` once when the calling flow run, or one of its sub-flows, is being cancelled."""
    # A worker sends SIGTERM to the flow run that it started. For runs from the command line and for sub-flows, Prefect
    # only writes the state Cancelling, and we have to read it.
    watched = flow_run.get_id()
    if not watched or watched == os.environ.get("PREFECT__FLOW_RUN_ID"):
        yield
        return
    left = threading.Event()

    def watch() -> None:
        with suppress(Exception), get_client(sync_client=True) as client:
            while not left.wait(POLL_S):
                with suppress(Exception):  # a server that does not answer must not stop the run
                    state = client.read_flow_run(UUID(watched)).state
                    if state is not None and state.is_cancelling():
                        on_cancel()
                        return

    thread = threading.Thread(target=watch, name="cancellation", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join(timeout=POLL_S)
