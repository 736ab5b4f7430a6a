"""What a flow run checks before it works: its own pipeline, a crashed run that it repeats, its turn, a free resource.

`flows/deployments.py` creates the deployments.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterExpectedStartTime
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.runtime import deployment, flow_run

from flows.context.outcome import Outcome
from flows.context.request import ANY_CASE, RunRequest
from flows.graph.execute import RunEndedError
from flows.graph.prefect_runner import POLL_S, settled_state
from flows.run.open_run import OPEN, OpenRun, open_run
from flows.schedule.approval import resume_approval
from flows.schedule.ticks import QUEUE_WAIT_S, skip_without_lock, tick_wait_s
from flows.workspace.lock import open_lock_file
from flows.workspace.settings import Settings, load_settings
from schemas.errors import LockedError, SecurityError
from schemas.load import load_file
from schemas.pipeline import DataPipeline

RESOURCE = "prefect.flow-run."
"""Start of a flow run's id in Prefect's events."""


class EndedEarlyError(Exception):
    """The run ended before it began.

    Attributes:
        outcome: The outcome in the ledger; None where this flow run did not become a run.
    """

    def __init__(self, reason: str, outcome: Outcome | None = None) -> None:
        super().__init__(reason)
        self.outcome = outcome


@contextmanager
def run_in_turn(pipeline: str, config: str, request: RunRequest) -> Iterator[OpenRun]:
    """Open the run when no other run of the pipeline is in progress; nothing to open if this process has done so.

    Raises:
        EndedEarlyError: there is nothing to do, or a person has answered the question that it was suspended for.
        TunegateError: as `open_run` and `check_bound`.
    """
    opened = OPEN.get()
    if opened is not None:
        yield opened
        return
    check_bound(pipeline, config, request)
    path = Path(config)
    spec, settings = load_file(path).find(pipeline), load_settings(path)
    resumed = resume_approval(spec, settings)
    if resumed is not None:
        raise EndedEarlyError(resumed.reason, resumed)
    request, is_deployed = _repeated(request), bool(deployment.get_id())
    check_bound(pipeline, config, request)
    if request.tick is not None:
        due = flow_run.get_scheduled_start_time() if request.tick == "schedule" and is_deployed else None
        request = request.model_copy(update={"due": due, "wait_s": max(request.wait_s, tick_wait_s(spec))})
    _skip_without_lock(spec, settings, request)
    if is_deployed:
        check_resource(spec)
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open_run(spec, settings, request, root=path.resolve().parent))
        except LockedError as error:
            if error.code == "TG0520":  # another run may have started meanwhile
                _skip_without_lock(spec, settings, request)
            raise
        opened.context.is_deployed = is_deployed
        yield opened


def _skip_without_lock(spec: DataPipeline, settings: Settings, request: RunRequest) -> None:
    skipped = skip_without_lock(spec, settings, request)
    if skipped is not None:
        raise EndedEarlyError(skipped.reason, skipped)


def _repeated(request: RunRequest) -> RunRequest:
    """Return the request of the crashed run that this one repeats; the same if it repeats none."""
    if request.crashed is None:
        return request
    # The automation gives a repeat the parameters of the deployment, not those of the crashed run.
    given = crashed_parameters(request.crashed)
    if given is None:
        raise EndedEarlyError(f"{request.crashed} is repeated by another run, or was a repeat itself")
    before = ended_original(request.crashed)
    if before is not None:
        raise EndedEarlyError(f"{request.crashed} had not crashed: it is {before.name}")
    return RunRequest.model_validate(given.get("request", {})).model_copy(update={"wait_s": QUEUE_WAIT_S})


def check_bound(pipeline: str, config: str, request: RunRequest = ANY_CASE) -> None:
    """Refuse a flow run with another pipeline or file than its deployment; runs without a deployment pass.

    Raises:
        SecurityError: TG0840, pipeline or file differ, or there are settings of this run alone.
    """
    # Anyone who may start a flow run chooses its parameters, and `pipelines.yaml` is code.
    deployment_id = deployment.get_id()
    if not deployment_id:
        return
    with get_client(sync_client=True) as client:
        own = client.read_deployment(UUID(deployment_id)).parameters
    allowed = {"pipeline": own.get("pipeline"), "config": own.get("config"), "request.given": ()}
    for name, value in {"pipeline": pipeline, "config": config, "request.given": request.given}.items():
        if value != allowed[name]:
            raise SecurityError(
                f"this deployment was started with {name}={value!r}; only its own is allowed: {allowed[name]!r}",
                code="TG0840",
                where=f"deployment {deployment_id}",
                hint="`tunegate ops deploy` makes one per pipeline; start that one, without these parameters",
            )


def crashed_parameters(crashed: str) -> dict[str, Any] | None:
    """Return the parameters of the crashed run if this flow run is the one that repeats it; else None.

    A crashed run is repeated once. Prefect may fire twice for one crash (the worker and the automation for lost runs
    both report it), and what repeats a run may crash too: only the first flow run made for a crash continues, and no
    crash of a repeat is repeated.

    Args:
        crashed: Resource of the crashed flow run, `prefect.flow-run.ID`.
    """
    deployment_id, own_id = deployment.get_id(), flow_run.get_id()
    if not deployment_id or not own_id:
        return None
    soon = datetime.now(UTC) + timedelta(minutes=1)  # the ticks to come are flow runs too
    with get_client(sync_client=True) as client:
        try:
            original = client.read_flow_run(UUID(crashed.removeprefix(RESOURCE)))
        except (ObjectNotFound, ValueError):
            return None
        recent = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[UUID(deployment_id)]),
                expected_start_time=FlowRunFilterExpectedStartTime(before_=soon),
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        )
    if str(original.deployment_id) != deployment_id or _crash_of(original):
        return None
    repeats = [(run.created, str(run.id)) for run in recent if _crash_of(run) == crashed and run.created]
    return dict(original.parameters) if repeats and min(repeats)[1] == own_id else None


def _crash_of(run: FlowRun) -> str | None:
    """Return the crashed flow run that this one repeats."""
    found: str | None = (run.parameters.get("request") or {}).get("crashed")
    return found


def ended_original(crashed: str) -> State[Any] | None:
    """Wait while the crashed flow run still runs; return its state then, None if it has to be repeated.

    A machine or server under load misses heartbeats, so that a healthy run counts as crashed until it says otherwise.

    Args:
        crashed: As in `crashed_parameters`.
    """
    flow_run_id, never = UUID(crashed.removeprefix(RESOURCE)), Event()
    with get_client(sync_client=True) as client:
        while not ((state := settled_state(client, flow_run_id, never)).is_final() or state.is_paused()):
            time.sleep(POLL_S)
    return None if state.is_crashed() else state


def check_resource(spec: DataPipeline) -> None:
    """Refuse a lock file that cannot be opened here, before the run curates.

    Raises:
        ConfigError: TG0110, as `open_lock_file`.
    """
    resource = spec.schedule.resource
    if resource is None or not resource.startswith("/"):
        return
    os.close(open_lock_file(Path(resource)))


@contextmanager
def wait_for_resource(opened: OpenRun) -> Iterator[None]:
    """Wait for the pipeline's `schedule.resource` and hold it while the block runs; only a deployment's run does.

    Raises:
        RunEndedError: the run was cancelled while it waited.
    """
    context = opened.context
    resource = context.spec.schedule.resource
    if resource is None or not context.is_deployed:
        yield
        return
    with ExitStack() as stack:
        is_noted = False
        while True:
            try:
                lock = context.ledger.resource_lock(resource, wait_s=POLL_S, run_id=context.run_id)
                stack.enter_context(lock)
                break
            except LockedError as error:
                if opened.run.cancelled.is_set():
                    raise RunEndedError("the run was cancelled while it waited for its resource") from None
                if not is_noted:
                    context.listeners.noted(f"waits for schedule.resource: {error.message}")
                    is_noted = True
        yield
