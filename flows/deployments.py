"""Create Prefect deployments for `schedule` and `place`, with the automations they need.

Everything has a fixed name, so that deploying again updates only what has changed. `flows/schedule/ticks.py` decides
what a tick does: Prefect only starts it. To be imported once Prefect's settings are set.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast, get_args
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from flows.context.request import STAGES, RunRequest
from flows.graph.prefect_runner import SILENT
from flows.pipeline import FLOW, assess, curate, finetune, release, run_pipeline
from flows.schedule.automatic import TAG, automatic_pipelines, placed_stages
from flows.workspace.servers import MLFLOW_ENVIRONMENT, PREFECT_ENVIRONMENT
from schemas.errors import ServiceError
from schemas.load import PipelineFile
from schemas.pipeline import DataPipeline, Deployable, PlaceSpec
from schemas.schedule import Cause
from schemas.secrets import masked
from schemas.verdicts import Verdict

STAGE_FLOWS: dict[str, Flow[Any, Any]] = {
    "curate": curate, "finetune": finetune, "assess": assess, "release": release,
}  # fmt: skip
REPEAT = "tunegate: repeat a crashed run"
ZOMBIES = "tunegate: runs without a sign of life"
SILENCE_S = 150
"""A run that is silent for this long has crashed: five heartbeats (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)."""
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", *get_args(Verdict), "SKIP")
_WAITS = ("Suspended", "Paused", "Resuming", "AwaitingRetry", "Cancelling")
"""States in which a run is silent but not dead; without them a run that waits for approval would count as crashed."""


@dataclass(frozen=True)
class Deployed:
    """A deployment on the server."""

    pipeline: str
    deployment_id: str
    schedule: str
    events: tuple[str, ...]
    stage: str = ""
    """Of a placed stage; empty for a whole pipeline."""
    pool: str = ""


def stage_deployments(loaded: PipelineFile, config: Path) -> list[tuple[RunnerDeployment, str]]:
    """Make a Prefect deployment for each placed stage, with its pool; register nothing.

    A caller can only choose the run: pipeline and file are fixed by the deployment.
    """
    return [
        (
            cast(
                "RunnerDeployment",
                STAGE_FLOWS[stage].to_deployment(
                    name=name,
                    parameters={"pipeline": name, "config": str(config.resolve()), "request": {}},
                    tags=[TAG, name],
                    entrypoint_type=EntrypointType.MODULE_PATH,
                ),
            ),
            pool,
        )
        for name, stage, pool in placed_stages(loaded)
    ]


def deployments(loaded: PipelineFile, config: Path) -> list[RunnerDeployment]:
    """Make a Prefect deployment for each pipeline with a cron or triggers; register nothing."""
    # A run finds the flow by its module: `serve` need not be started in the program's folder. There is no limit of runs
    # side by side: the ledger refuses a second run of a pipeline, and a tick decides itself whether it waits or skips.
    found = []
    for name, spec in automatic_pipelines(loaded).items():
        schedule = spec.schedule
        made = run_pipeline.to_deployment(
            name=name,
            schedule=None if schedule.cron is None else Cron(schedule.cron, timezone=schedule.timezone, slug="tick"),
            parameters={"pipeline": name, "config": str(config.resolve()), "request": _ticked("schedule")},
            description=masked(spec.description),
            tags=[TAG, name],
            triggers=[_trigger(spec, place) for place in range(len(schedule.triggers))],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        found.append(cast("RunnerDeployment", made))  # only a coroutine when called from one
    return found


def prepare() -> None:
    """Create the automations that find dead runs and repeat crashed ones. Idempotent."""
    with get_client(sync_client=True) as client:
        _put_automation(client, _zombies())
        _put_automation(client, _repeat_crashed())


def register(loaded: PipelineFile, config: Path, *, pool: str | None) -> tuple[list[Deployed], list[str]]:
    """Update the server to pipelines.yaml; return the deployments, and the names of those that were removed.

    Args:
        pool: Work pool whose workers run them; None leaves them to `tunegate ops serve`.

    Raises:
        ConfigError: TG0159, no pipeline has a cron, triggers or a placed stage.
        ServiceError: TG0701, there is no such work pool.
    """
    made = deployments(loaded, config)
    prepare()
    done = []
    with get_client(sync_client=True) as client:
        if pool is not None:
            _need_pool(client, pool)
        for each in made:
            spec = loaded.find(each.name)
            each_id = _apply(client, each, pool, spec.place, "pipeline")
            if spec.schedule.cron is None:
                _drop_schedules(client, each_id)
            events = tuple(trigger.event for trigger in spec.schedule.triggers)
            done.append(Deployed(each.name, str(each_id), spec.schedule.cron or "", events, pool=pool or ""))
        stages = stage_deployments(loaded, config)
        for _, stage_pool in stages:
            _need_pool(client, stage_pool)
        kept = {UUID(each.deployment_id) for each in done}
        for deployment, stage_pool in stages:
            place = loaded.find(deployment.name).place
            stage_id = _apply(client, deployment, stage_pool, place, cast("Deployable", deployment.flow_name))
            kept.add(stage_id)
            done.append(
                Deployed(deployment.name, str(stage_id), "", (), stage=deployment.flow_name or "", pool=stage_pool)
            )
        removed = _drop_others(client, config, kept)
    return done, removed


def _apply(
    client: SyncPrefectClient, deployment: RunnerDeployment, pool: str | None, place: PlaceSpec, what: Deployable
) -> UUID:
    variables: dict[str, Any] = {}
    with suppress(ObjectNotFound):  # what a person has set stays: Prefect deletes a limit that is not said again
        kept = client.read_deployment_by_name(f"{deployment.flow_name}/{deployment.name}")
        limit = kept.global_concurrency_limit
        deployment.concurrency_limit = None if limit is None else limit.limit
        deployment.concurrency_options = kept.concurrency_options
        variables = kept.job_variables or {}
    if pool is not None:  # a worker has the environment that it was started in: perhaps none of these
        declared = place.job_variables.get(what, {})
        given = {**variables.get("env", {}), **declared.get("env", {})}
        environment = {**given, **PREFECT_ENVIRONMENT, **MLFLOW_ENVIRONMENT}
        deployment.job_variables = {**variables, **declared, "env": environment}
        deployment.work_queue_name = place.queues.get(what)
    return cast("UUID", deployment.apply(work_pool_name=pool))


def _need_pool(client: SyncPrefectClient, pool: str) -> None:
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        raise ServiceError(
            f"no work pool {pool!r}", code="TG0701", where="tunegate ops deploy",
            hint=f"`prefect work-pool create {pool} --type process` creates it, "
            f"`prefect worker start --pool {pool}` starts a worker",
        ) from None  # fmt: skip


def _trigger(spec: DataPipeline, place: int) -> Any:
    declared = spec.schedule.triggers[place]
    return DeploymentEventTrigger(
        name=f"tunegate: {spec.name} on {declared.event}",
        expect={declared.event},
        match={"prefect.resource.id": declared.resource} if declared.resource else {},
        parameters={"request": _ticked("event")},
        schedule_after=timedelta(minutes=declared.quiet_minutes),
    )


def _ticked(cause: Cause) -> dict[str, Any]:
    return RunRequest(tick=cause).model_dump(mode="json", exclude_defaults=True)


def _zombies() -> AutomationCore:
    """Make the automation that marks a run without heartbeats as crashed, unless it has ended or waits."""
    # The one in Prefect's documentation does not know the waiting states and ends runs that wait for approval.
    beat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name=ZOMBIES,
        description="The ledger has the truth; this only corrects what Prefect's page shows.",
        tags=[TAG],
        trigger=EventTrigger(
            after={beat, "prefect.flow-run.Running"},  # it may die before its first heartbeat
            expect={beat, *(f"prefect.flow-run.{state}" for state in (*_ENDS, *_WAITS))},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": "flow", "prefect.resource.name": [FLOW, *STAGES]}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_S),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=SILENT)],
    )


def _repeat_crashed() -> AutomationCore:
    """Make the automation that repeats a crashed run of a deployment: a new flow run that continues from the store."""
    # A new flow run, not another attempt of the same: a worker that still watches the first attempt ends the second.
    # The new run decides whether it may continue (`crashed_parameters`), since this may fire twice for one crash.
    return AutomationCore(
        name=REPEAT,
        description="A crashed run of a deployment is repeated, once; the repeat continues from what is in the store.",
        tags=[TAG],
        trigger=EventTrigger(
            expect={"prefect.flow-run.Crashed"},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=[
                ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": FLOW}),
                ResourceSpecification({"prefect.resource.role": "deployment"}),
            ],
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            RunDeployment(
                source="inferred",
                parameters={"request": {"crashed": {"__prefect_kind": "jinja", "template": "{{ event.resource.id }}"}}},
            )
        ],
    )


def _put_automation(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Create it, or update the one with this name; of several keep one."""
    found = client.read_automations_by_name(automation.name)
    if not found:
        client.create_automation(automation)
    elif _content(found[0]) != _content(automation):
        client.update_automation(found[0].id, automation)
    for other in found[1:]:
        client.delete_automation(other.id)


def _content(automation: AutomationCore) -> dict[str, Any]:
    """Return what it does, without the server's ids and order of sets."""
    trigger = automation.trigger.model_dump(mode="json")
    kept = {name: sorted(value, key=repr) if isinstance(value, list) else value for name, value in trigger.items()}
    kept.pop("id", None)
    return {
        "enabled": automation.enabled,
        "trigger": kept,
        "actions": [one.model_dump(mode="json", exclude={"id"}) for one in automation.actions],
    }


def _drop_schedules(client: SyncPrefectClient, deployment_id: UUID) -> None:
    # Prefect keeps the schedule of a deployment that is registered without one.
    for schedule in client.read_deployment_schedules(deployment_id):
        client.delete_deployment_schedule(deployment_id, schedule.id)


def _drop_others(client: SyncPrefectClient, config: Path, kept: set[UUID]) -> list[str]:
    """Remove the deployments of this pipelines.yaml that it no longer declares."""
    tagged = client.read_deployments(deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG])))
    gone = [one for one in tagged if one.parameters.get("config") == str(config.resolve()) and one.id not in kept]
    for one in gone:
        client.delete_deployment(one.id)
    return sorted(one.name for one in gone)
