"""Checks of a deployed flow run before it works: its own pipeline, a crashed run that it repeats, a free resource.

Called by `flows/pipeline.py`; `flows/deployments.py` creates the deployments.
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
from prefect.client.schemas.objects import State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.runtime import deployment, flow_run

from flows.graph.execute import RunEndedError
from flows.graph.prefect_runner import POLL_S, settled_state
from flows.run.open_run import OpenRun
from flows.workspace.lock import open_lock_file
from schemas.errors import LockedError, SecurityError
from schemas.pipeline import PipelineSpec

RESOURCE = "prefect.flow-run."
"""Start of a flow run's id in Prefect's events."""


def check_bound(pipeline: str, config: str) -> None:
    """Refuse a flow run with another pipeline or file than its deployment; runs without a deployment pass.

    Raises:
        SecurityError: TG0840, pipeline or file differ.
    """
    # Anyone who may start a flow run chooses its parameters, and `pipelines.yaml` is code.
    deployment_id = deployment.get_id()
    if not deployment_id:
        return
    with get_client(sync_client=True) as client:
        own = client.read_deployment(UUID(deployment_id)).parameters
    allowed = {"pipeline": own.get("pipeline"), "config": own.get("config")}
    for name, value in {"pipeline": pipeline, "config": config}.items():
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
    if str(original.deployment_id) != deployment_id or original.parameters.get("crashed"):
        return None
    repeats = [(run.created, str(run.id)) for run in recent if run.parameters.get("crashed") == crashed and run.created]
    return dict(original.parameters) if repeats and min(repeats)[1] == own_id else None


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


def check_resource(spec: PipelineSpec) -> None:
    """Refuse a lock file that cannot be opened here, before the run curates.

    Raises:
        ConfigError: TG0110, as `open_lock_file`.
    """
    resource = spec.schedule.resource if spec.schedule is not None else None
    if resource is None or not resource.startswith("/"):
        return
    os.close(open_lock_file(Path(resource)))


@contextmanager
def hold_resource(opened: OpenRun, *, deployed: bool) -> Iterator[None]:
    """Hold the pipeline's `schedule.resource` while the block runs; a run from the command line does not wait for it.

    Raises:
        RunEndedError: the run was cancelled while it waited.
    """
    context = opened.context
    resource = context.spec.schedule.resource if context.spec.schedule is not None else None
    if resource is None or not deployed:
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
