"""Checks of a deployed flow run before it works: is this its own pipeline, and is its resource free?

Called by `flows/pipeline.py`; `flows/deployments.py` creates the deployments and limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from schemas.errors import SecurityError, ServiceError
from schemas.pipeline import PipelineSpec

LEASE_S = 60.0


def check_bound(pipeline: str, config: str) -> None:
    """Refuse a flow run with another pipeline or file than its deployment; runs without a deployment pass.

    Raises:
        SecurityError: TG0840, pipeline or file differ.
    """
    # Anyone who may start a flow run chooses its parameters, and `pipelines.yaml` is code.
    from prefect.client.orchestration import get_client
    from prefect.runtime import deployment

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
                hint="`tunegate deploy` creates a deployment per pipeline; start that one, without these parameters",
            )


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
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
    from prefect.concurrency.sync import concurrency

    slot = concurrency(
        limit_name(resource), occupy=1, strict=True, lease_duration=LEASE_S, raise_on_lease_renewal_failure=False
    )
    try:
        slot.__enter__()
    except ConcurrencySlotAcquisitionError:
        raise ServiceError(
            f"the limit {limit_name(resource)} is not on the Prefect server", code="TG0701",
            where=f"{spec.name}.schedule.resource", hint="`tunegate deploy` creates it",
        ) from None  # fmt: skip
    try:
        yield
    finally:
        slot.__exit__(None, None, None)
