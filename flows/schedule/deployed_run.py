"""Checks of a deployed flow run before it works: is this its own pipeline, and is its resource free?

Called by `flows/pipeline.py`; `flows/deployments.py` creates the deployments and limits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterExpectedStartTime
from prefect.client.schemas.sorting import FlowRunSort
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.runtime import deployment, flow_run

from schemas.errors import SecurityError, ServiceError
from schemas.pipeline import PipelineSpec

LEASE_S = 60.0


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
            original = client.read_flow_run(UUID(crashed.removeprefix("prefect.flow-run.")))
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


def limit_name(resource: str) -> str:
    """Return the name of a resource's limit in Prefect."""
    return f"tunegate-{resource}"


@contextmanager
def hold_resource(spec: PipelineSpec, *, deployed: bool) -> Iterator[None]:
    """Hold the pipeline's resource while the block runs; a run from the command line does not wait for it.

    Raises:
        ServiceError: TG0701, the limit does not exist: without it no run would wait.
    """
    resource = spec.schedule.resource if spec.schedule is not None else None
    if resource is None or not deployed:
        yield
        return
    slot = concurrency(
        limit_name(resource), occupy=1, strict=True, lease_duration=LEASE_S, raise_on_lease_renewal_failure=False
    )
    try:
        slot.__enter__()
    except ConcurrencySlotAcquisitionError:
        raise ServiceError(
            f"the limit {limit_name(resource)} is not on the Prefect server", code="TG0701",
            where=f"{spec.name}.schedule.resource", hint="`tunegate ops deploy` creates it",
        ) from None  # fmt: skip
    try:
        yield
    finally:
        slot.__exit__(None, None, None)
