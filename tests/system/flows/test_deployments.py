"""Schedules and triggers on a real Prefect server: registered, registered again, changed, removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows import deployments as deploy
from flows.schedule import deployed_run
from schemas.errors import ConfigError, ServiceError
from schemas.load import load_file

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.server


def test_deploying_again_changes_nothing_and_deploying_a_change_updates_it(
    empty_workplace: ForkedWorkplace, client: SyncPrefectClient
) -> None:
    names = [f"{what}-{empty_workplace.folder.name.lower().replace('_', '-')}"[:60] for what in ("timed", "triggered")]
    timed: dict[str, Any] = {"cron": "0 5 * * 1", "timezone": "Europe/Berlin", "resource": names[0]}

    def declare(**changes: Any) -> Path:
        def change(document: dict[str, Any]) -> None:
            pipelines = document["pipelines"]
            pipelines[names[0]] = {"extends": "small", "schedule": {**timed, **changes}, "triggers": []}
            if changes.get("cron") != "@daily":
                pipelines[names[1]] = {"extends": "small", "triggers": [{"event": "tickets.arrived"}]}

        empty_workplace.declare(change)
        return empty_workplace.folder / "pipelines.yaml"

    config = declare()
    first, removed = deploy.register(load_file(config), config, pool=None)
    assert ([each.pipeline for each in first], removed) == (names, [])
    assert first[1].events == ("tickets.arrived",)
    kept = client.read_deployment(first[0].deployment_id)
    [schedule] = kept.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 5 * * 1", "Europe/Berlin")
    assert kept.parameters == {"pipeline": names[0], "config": str(config), "tick": "schedule"}
    assert kept.concurrency_options is not None
    assert kept.concurrency_options.collision_strategy == "ENQUEUE"
    assert client.read_global_concurrency_limit_by_name(deployed_run.limit_name(names[0])).limit == 1
    [zombies] = client.read_automations_by_name(deploy.ZOMBIES)
    assert {"prefect.flow-run.Suspended", "prefect.flow-run.Paused"} <= zombies.trigger.expect
    assert client.read_deployment(first[1].deployment_id).schedules == []

    second, _ = deploy.register(load_file(config), config, pool=None)
    assert second == first
    assert client.read_automations_by_name(deploy.ZOMBIES) == [zombies]
    owned = client.read_resource_related_automations(f"prefect.deployment.{first[1].deployment_id}")
    assert [one.name for one in owned] == [f"tunegate: {names[1]} on tickets.arrived"]
    assert [
        one.cron for one in (each.schedule for each in client.read_deployment(first[0].deployment_id).schedules)
    ] == ["0 5 * * 1"]

    third, removed = deploy.register(load_file(declare(cron="@daily")), config, pool=None)
    assert ([each.deployment_id for each in third], removed) == ([first[0].deployment_id], [names[1]])
    [schedule] = client.read_deployment(first[0].deployment_id).schedules
    assert schedule.schedule.cron == "@daily"


def test_a_work_pool_takes_the_deployments_and_a_missing_one_is_named(
    empty_workplace: ForkedWorkplace, client: SyncPrefectClient
) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate

    name = empty_workplace.folder.name.lower().replace("_", "-")[:60]

    def change(document: dict[str, Any]) -> None:
        document["pipelines"][name] = {"extends": "small", "schedule": {"cron": "0 5 * * 1"}}

    empty_workplace.declare(change)
    config = empty_workplace.folder / "pipelines.yaml"
    with pytest.raises(ServiceError, match="TG0701"):
        deploy.register(load_file(config), config, pool=f"pool-{name}")
    client.create_work_pool(WorkPoolCreate(name=f"pool-{name}", type="process"))
    [made], _ = deploy.register(load_file(config), config, pool=f"pool-{name}")
    kept = client.read_deployment(made.deployment_id)
    assert (kept.work_pool_name, kept.entrypoint) == (f"pool-{name}", "flows.pipeline.run_pipeline")


def test_queued_ticks_without_a_concurrency_limit_are_refused(
    empty_workplace: ForkedWorkplace, client: SyncPrefectClient
) -> None:
    def change(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["schedule"] = {"cron": "0 5 * * 1", "resource": "nowhere"}

    empty_workplace.declare(change)
    spec = load_file(empty_workplace.folder / "pipelines.yaml").get("small")
    with pytest.raises(ServiceError, match="TG0701"), deployed_run.hold_resource(spec, deployed=True):
        pass
    client.upsert_global_concurrency_limit_by_name(deployed_run.limit_name("nowhere"), limit=1)
    with deployed_run.hold_resource(spec, deployed=True):
        assert client.read_global_concurrency_limit_by_name(deployed_run.limit_name("nowhere")).active_slots == 1
    with deployed_run.hold_resource(spec, deployed=False):
        pass


def test_a_file_without_schedules_is_refused(empty_workplace: ForkedWorkplace) -> None:
    config = empty_workplace.folder / "pipelines.yaml"
    with pytest.raises(ConfigError, match="TG0159"):
        deploy.automatic_pipelines(load_file(config))
