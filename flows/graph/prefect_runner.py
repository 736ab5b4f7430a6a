"""Nodes as task runs with their edges, stages on work pools, cancelling: what `flows/pipeline.py` needs of Prefect."""

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

from prefect import Task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Cancelling, Completed, Pending, Running
from prefect.utilities.annotations import quote

from flows.graph.execute import (
    RETRIES,
    CancelSignal,
    NodeOutcome,
    Run,
    RunEndedError,
    drive,
    end_running,
    make_safely,
)
from flows.graph.graph import SEPARATOR, Node
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


class StageEnd(str):
    """How a stage ended: `5 made, 1 reused, 0 skipped`.

    An object of its own, no plain string, so that Prefect knows which flow returned it, and draws the edge to the flow
    that gets it.
    """

    stage = ""


def run_nodes(
    step: Task[..., Any],
    run: Run,
    stage: str | None,
    *,
    only: Callable[[Node], bool] = lambda _node: True,
    quietly: bool = False,
) -> None:
    """Run the stage's nodes as tasks of the calling flow, each after its parents.

    Args:
        step: The task that makes one node.
        only: Only these nodes.
        quietly: Create no task for nodes that are already decided.

    Raises:
        TunegateError: a node failed.
        RunEndedError: the run was cancelled.
        Exception: Prefect failed; finished results are in the store.
    """
    futures: dict[str, PrefectFuture[Any]] = {}

    def submit(node: Node, decided: NodeOutcome | None) -> Any:
        if quietly and decided is not None:
            done: Future[NodeOutcome] = Future()
            done.set_result(decided)
            return done
        parents = [futures[parent.name] for parent in run.graph.parents(node) if parent.name in futures]
        retries = RETRIES if node.kind == "step" else 0  # an effect may have happened before it failed
        # A name as a string would go through `str.format`. Without `quote`, equal parts of arguments become edges.
        named = step.with_options(name=node.name, task_run_name=lambda: label_of(node, decided), retries=retries)
        futures[node.name] = named.submit(quote(run), quote(node), quote(decided), wait_for=parents)
        return futures[node.name]

    try:
        drive(run, submit, stage=stage, only=only)
    except (TunegateError, RunEndedError):
        raise
    except Exception:
        give_up()
        raise
    except BaseException as error:  # Ctrl-C, SIGTERM: wait for running nodes, so that checkpoints are complete
        run.raised = run.raised or error
        end_running(run, futures)
        raise


def give_up() -> None:
    """Ask a server that did not answer for 30 seconds only once from now on.

    Prefect's engine still reports the end of every flow to it, and would wait as long each time.
    """
    get_current_settings().client.max_retries = 0


def label_of(node: Node, decided: NodeOutcome | None) -> str:
    """Return the task run's name, in characters that the font of Prefect's graph has: `answers: champion (reused)`.

    Prefect colours what was made and what was reused alike.
    """
    name = node.name.replace(SEPARATOR, ": ")
    if decided is None:
        return name
    return f"{name} ({'skipped' if decided.skipped else 'reused' if decided.reused else 'made'})"


def settle(run: Run, node: Node, decided: NodeOutcome | None) -> State[NodeOutcome]:
    """Make the node unless it is decided already; return the final state of its task.

    Raises:
        TunegateError: it failed.
    """
    try:
        outcome = decided or make_safely(run, node)
    except (RunEndedError, TunegateError) as error:
        if not run.cancelled.is_set():
            raise
        return Cancelled(message=str(error))
    if outcome.skipped:
        return Completed(name="Skipped", message=outcome.skipped, data=outcome)
    if outcome.reused:
        maker = run.made_by(outcome.key)
        message = f"made by run {maker}" if maker else "made by an earlier run"
        return Completed(name="Cached", message=message, data=outcome)
    return Completed(message=f"{outcome.seconds:.1f} s", data=outcome)


def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Return whether the error may pass (a service that does not answer, a process that was killed)."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TunegateError) and error.transient


def tally(run: Run, stage: str) -> StageEnd:
    """Return `2 made, 1 reused, 1 skipped`."""
    ends = [run.outcomes[node.name] for node in run.graph.of_stage(stage) if node.name in run.outcomes]
    n_skipped = sum(bool(each.skipped) for each in ends)
    n_reused = sum(each.reused for each in ends)
    end = StageEnd(f"{len(ends) - n_reused - n_skipped} made, {n_reused} reused, {n_skipped} skipped")
    end.stage = stage
    return end


@dataclass(frozen=True)
class Placed:
    """A stage that runs on a work pool."""

    stage: str
    pool: str
    deployment: str
    """`FLOW/DEPLOYMENT`."""
    parameters: dict[str, Any]
    """Only references, which Prefect stores and shows, and the ends of the stages before, which become edges."""
    work: str
    """Digest of the work: a run joins the flow run of a dead run that does the same."""
    wait_for_worker_s: float
    tags: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """Of all flow runs that do this work."""
        return f"work:{self.work[:32]}"


def run_on_pool(run: Run, placed: Placed) -> tuple[State[Any], dict[str, Any]]:
    """Run the stage on a worker of the pool, as a flow run below the calling one.

    If its process or machine is lost, a new flow run continues from what is in the store, up to `RETRIES` times.
    Returns the flow run's state and parameters; those of a dead run's, if that was joined.

    Raises:
        ServiceError: TG0701, there is no such deployment, no worker came online in time, or Prefect failed.
        RunEndedError: the run was cancelled.
    """
    try:
        with get_client(sync_client=True) as client:
            return _run_and_retry(client, placed, run)
    except (TunegateError, RunEndedError):
        raise
    except Exception as error:
        raise ServiceError(
            f"Prefect failed while stage {placed.stage} was on pool {placed.pool!r}: {type(error).__name__}",
            code="TG0701", where=f"place.{placed.stage}", hint="run again: it joins the stage if that is still running",
        ) from error  # fmt: skip


def _run_and_retry(client: SyncPrefectClient, placed: Placed, run: Run) -> tuple[State[Any], dict[str, Any]]:
    attempt = 0
    while True:
        child = None if attempt else find_same_work(client, placed, run.cancelled)
        child = child or _create(placed)
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


def _create(placed: Placed) -> UUID:
    try:
        # Not to its end: it would wait for a worker for ever, and cancel nothing when this process ends.
        child = cast(
            "FlowRun",  # only a coroutine when called from one
            run_deployment(placed.deployment, parameters=placed.parameters, tags=[placed.tag, *placed.tags], timeout=0),
        )
    except ObjectNotFound:
        raise ServiceError(
            f"stage {placed.stage} is placed on pool {placed.pool!r}, and the server has no deployment of it",
            code="TG0701", where=placed.deployment, hint="`tunegate ops deploy` creates it",
        ) from None  # fmt: skip
    return child.id


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
