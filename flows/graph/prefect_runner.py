"""The one file that uses Prefect's engine: a stage is a sub-flow, a node is a task run with its real edges.

Prefect shows, retries and cancels. Only the store decides what is reused: Prefect's cache and results stay off.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import RunType, State, StateDetails
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Cancelled, Cancelling, Completed, Pending, Running
from prefect.tasks import exponential_backoff

from flows.graph.execute import (
    FIRST_DELAY_S,
    RETRIES,
    CancelSignal,
    Outcome,
    Run,
    RunEndedError,
    drive,
    end_running,
    make_safely,
)
from flows.graph.graph import Node
from schemas.errors import ServiceError, TunegateError

POLL_S = 2.0
SILENT = "no heartbeat; see `tunegate runs`"
"""Message of the state Crashed that the automation for lost runs sets (`flows/deployments.py`)."""
HEAD_START_S = 6.0
"""A worker that sees its flow run cancelled has ended it by then."""
ALIVE_S = 30.0
"""A flow run that counts as crashed by mistake has said so by then, on a busy machine too."""
LATELY_S = 600.0
"""One that counts as crashed for longer is dead."""
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
        end_running(run, futures)
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

    @property
    def tag(self) -> str:
        """Of all flow runs that do this work."""
        return f"work:{self.work[:32]}"


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
        child = None if attempt else find_same_work(client, placed, run.cancelled)
        child = child or _create(client, placed, parents, attempt)
        try:
            state = _final_state(client, child, placed, run)
        except BaseException:  # Ctrl-C and SIGTERM as well: nothing else would stop it
            with suppress(Exception):
                # By force: it may count as crashed, and say in a moment that it still runs.
                client.set_flow_run_state(child, Cancelling(message="the run that started it was ended"), force=True)
            raise
        attempt += 1
        if not state.is_crashed() or attempt > RETRIES:
            return state, client.read_flow_run(child).parameters


def find_same_work(client: SyncPrefectClient, placed: Placed, left: threading.Event) -> UUID | None:
    """Return the flow run of a dead run that does this work: two of them would write to one checkpoint.

    Args:
        left: Ends the wait for one that counts as crashed and may say that it still runs.
    """
    states = ["SCHEDULED", "PENDING", "RUNNING", "CRASHED"]
    alike = FlowRunFilter.model_validate({"tags": {"all_": [placed.tag]}, "state": {"type": {"any_": states}}})
    for child in client.read_flow_runs(flow_run_filter=alike):
        state = child.state or Pending()
        if is_silent(state) and datetime.now(UTC) - state.timestamp < timedelta(seconds=LATELY_S):
            state = settled_state(client, child.id, left)
        if not state.is_final():
            return child.id
    return None


def _create(client: SyncPrefectClient, placed: Placed, parents: list[State[Any]], attempt: int) -> UUID:
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
        tags=[placed.tag],
        parent_task_run_id=tracking.id,
        idempotency_key=str(tracking.id),
    ).id


def _await(client: SyncPrefectClient, child: UUID, placed: Placed, run: Run) -> State[Any]:
    deadline = time.monotonic() + placed.wait_for_worker_s
    while not (state := state_of(client, child)).is_final():
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


def _final_state(client: SyncPrefectClient, child: UUID, placed: Placed, run: Run) -> State[Any]:
    """Return the state in which the flow run ends, after it has corrected one that was set by mistake."""
    while True:
        _await(client, child, placed, run)
        state = settled_state(client, child, run.cancelled)
        if run.cancelled.is_set():
            raise RunEndedError("the run was cancelled")
        if state.is_final():
            return state


def settled_state(client: SyncPrefectClient, flow_run_id: UUID, left: threading.Event) -> State[Any]:
    """Return the flow run's state; one without heartbeats has `ALIVE_S` to say that it still runs.

    Args:
        left: Ends the wait.
    """
    deadline = time.monotonic() + ALIVE_S
    while is_silent(state := state_of(client, flow_run_id)) and time.monotonic() < deadline:
        if left.wait(POLL_S):
            break
    return state


def state_of(client: SyncPrefectClient, child: UUID) -> State[Any]:
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


class Cancellation:
    """Ends the flow run's work once the flow run is being cancelled, whoever started it."""

    def __init__(self) -> None:
        self.run: Run | None = None
        """The run to end, which saves what it has; None while there is none to end."""

    def cancel(self) -> None:
        """End the run, or interrupt the main thread, which waits for something or reads the source."""
        if self.run is not None:
            self.run.cancel()
        elif signal.getsignal(signal.SIGUSR1) is _interrupt:
            signal.pthread_kill(cast("int", threading.main_thread().ident), signal.SIGUSR1)


def _interrupt(_number: int, _frame: Any) -> None:
    raise CancelSignal


@contextmanager
def cancellation() -> Iterator[Cancellation]:
    """Watch the state of the calling flow run while the block runs.

    Raises:
        RunEndedError: it was cancelled while there was no run to end.
    """
    watched = flow_run.get_id()
    found = Cancellation()
    if not watched:
        yield found
        return
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGUSR1, _interrupt) if in_main_thread else None
    left = threading.Event()
    thread = threading.Thread(target=_watch, args=(UUID(watched), found, left), name="cancellation", daemon=True)
    thread.start()
    try:
        yield found
    except CancelSignal:
        raise RunEndedError("the run was cancelled; the next run continues from here") from None
    finally:
        if in_main_thread:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # the block is over: nothing is left to interrupt
        left.set()
        thread.join(timeout=ALIVE_S)  # it may be saying that the run is alive, which must not follow the run's end
        if in_main_thread:
            signal.signal(signal.SIGUSR1, before)


def _watch(flow_run_id: UUID, found: Cancellation, left: threading.Event) -> None:
    """Cancel the work once the flow run is cancelled; correct its state, and its stages', if they count as crashed."""
    # Prefect only writes the state Cancelling. A worker that sees it sends SIGTERM to the run that it started, and it
    # is given the time to; but one that died, or that lost its server for a while, no longer looks.
    patience = HEAD_START_S if str(flow_run_id) == os.environ.get("PREFECT__FLOW_RUN_ID") else 0.0
    silent = {
        "parent_flow_run_id": {"any_": [flow_run_id]},
        "deployment_id": {"is_null_": True},
    }  # those of workers: not
    stages = FlowRunFilter.model_validate({**silent, "state": {"type": {"any_": ["CRASHED"]}}})
    with suppress(Exception), get_client(sync_client=True) as client:
        while not left.wait(POLL_S):
            with suppress(Exception):  # a server that does not answer must not stop the run
                own = client.read_flow_run(flow_run_id)
                if own.state is not None and own.state.is_cancelling():
                    if not left.wait(patience):
                        found.cancel()
                    return
                for each in (own, *client.read_flow_runs(flow_run_filter=stages)):
                    if each.state is not None and is_silent(each.state) and not left.is_set():
                        client.set_flow_run_state(each.id, Running(message="still running"), force=True)


def is_silent(state: State[Any]) -> bool:
    """Return whether the flow run counts as crashed because no heartbeat arrived; its process may be alive."""
    return state.is_crashed() and state.message == SILENT
