"""Schedules and triggers on a real Prefect server: registered, registered again, changed, removed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from flows import deployments as deploy
from flows.schedule.deployed_run import check_resource
from flows.workspace.servers import MLFLOW_ENVIRONMENT, PREFECT_ENVIRONMENT
from schemas.errors import ConfigError, ServiceError
from schemas.load import load_file
from tests.support.specs import pipeline_spec

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
            pipelines[names[0]] = {"extends": "small", "schedule": {**timed, **changes}}
            if changes.get("cron") != "@daily":
                pipelines[names[1]] = {"extends": "small", "schedule": {"triggers": [{"event": "tickets.arrived"}]}}

        empty_workplace.declare(change)
        return empty_workplace.folder / "pipelines.yaml"

    config = declare()
    first, removed = deploy.register(load_file(config), config, pool=None)
    assert ([each.pipeline for each in first], removed) == (names, [])
    assert first[1].events == ("tickets.arrived",)
    kept = client.read_deployment(first[0].deployment_id)
    [schedule] = kept.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 5 * * 1", "Europe/Berlin")
    assert kept.parameters == {"pipeline": names[0], "config": str(config), "request": {"tick": "schedule"}}
    assert kept.global_concurrency_limit is None
    [zombies] = client.read_automations_by_name(deploy.ZOMBIES)
    quiet = ("Suspended", "Paused", "Completed", "PROMOTE", "HOLD", "BLOCK", "ERROR", "UNCOMPARED", "SKIP")
    assert {f"prefect.flow-run.{state}" for state in quiet} <= zombies.trigger.expect
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
    assert kept.job_variables["env"] == {**PREFECT_ENVIRONMENT, **MLFLOW_ENVIRONMENT}  # a worker may have none of it

    from prefect.client.schemas.actions import DeploymentUpdate

    by_a_person = {"working_dir": "/srv", "env": {"REGION": "eu"}}
    client.update_deployment(made.deployment_id, DeploymentUpdate(job_variables=by_a_person))
    deploy.register(load_file(config), config, pool=f"pool-{name}")
    variables = client.read_deployment(made.deployment_id).job_variables
    assert variables["working_dir"] == "/srv"
    assert variables["env"] == {"REGION": "eu", **PREFECT_ENVIRONMENT, **MLFLOW_ENVIRONMENT}

    def declared(document: dict[str, Any]) -> None:
        change(document)
        job = {"pipeline": {"working_dir": "/opt", "env": {"THREADS": "8"}}, "finetune": {"env": {"THREADS": "2"}}}
        place = {"finetune": f"pool-{name}", "queues": {"pipeline": "nightly"}, "job_variables": job}
        document["pipelines"][name]["place"] = place

    empty_workplace.declare(declared)
    [_, stage], _ = deploy.register(load_file(config), config, pool=f"pool-{name}")
    whole, placed = client.read_deployment(made.deployment_id), client.read_deployment(stage.deployment_id)
    assert (whole.work_queue_name, placed.work_queue_name) == ("nightly", "default")
    assert whole.job_variables["working_dir"] == "/opt"
    assert whole.job_variables["env"] == {
        "REGION": "eu", "THREADS": "8", **PREFECT_ENVIRONMENT, **MLFLOW_ENVIRONMENT,
    }  # fmt: skip
    assert placed.job_variables["env"]["THREADS"] == "2"
    assert set(whole.tags) == set(placed.tags) == {"tunegate", name}


def test_a_slot_that_no_run_holds_is_named_and_freed_by_the_doctor(
    empty_workplace: ForkedWorkplace, client: SyncPrefectClient
) -> None:
    from prefect.client.schemas.actions import DeploymentUpdate, GlobalConcurrencyLimitUpdate
    from prefect.states import Running

    name = empty_workplace.folder.name.lower().replace("_", "-")[:60]

    def change(document: dict[str, Any]) -> None:
        document["pipelines"][name] = {"extends": "small", "schedule": {"cron": "0 5 * * 1"}}

    empty_workplace.declare(change)
    config = empty_workplace.folder / "pipelines.yaml"
    [made], _ = deploy.register(load_file(config), config, pool=None)
    client.update_deployment(made.deployment_id, DeploymentUpdate(concurrency_limit=2))
    held = client.create_flow_run_from_deployment(made.deployment_id)
    client.set_flow_run_state(held.id, Running(), force=True)
    limit = f"deployment:{made.deployment_id}"
    client.update_global_concurrency_limit(limit, GlobalConcurrencyLimitUpdate(active_slots=2))

    slots = [each for each in empty_workplace.json("ops", "doctor")["findings"] if each["what"] == "slot"]
    assert [each["message"] for each in slots] == [f"freed 1 of deployment {name}'s limit that no run held"]
    assert client.read_global_concurrency_limit_by_name(limit).active_slots == 1
    assert not [each for each in empty_workplace.json("ops", "doctor")["findings"] if each["what"] == "slot"]

    deploy.register(load_file(config), config, pool=None)
    kept = client.read_deployment(made.deployment_id).global_concurrency_limit
    assert kept is not None
    assert (kept.limit, kept.active_slots) == (2, 1)  # a person has set it

    client.update_global_concurrency_limit(limit, GlobalConcurrencyLimitUpdate(name="shared", active_slots=2))
    assert not [each for each in empty_workplace.json("ops", "doctor")["findings"] if each["what"] == "slot"]


def test_the_work_of_a_flow_run_that_counts_as_crashed_by_mistake_is_not_begun_twice(
    client: SyncPrefectClient,
) -> None:
    from prefect import flow
    from prefect.states import Crashed, Running

    from flows.graph.prefect_runner import SILENT, Placed, find_same_work

    @flow
    def stage() -> None:
        pass

    never = threading.Event()
    placed = Placed("finetune", "gpus", "finetune/replies", {}, f"{uuid4().hex}{uuid4().hex}", 60.0)
    assert find_same_work(client, placed, never) is None
    silent = client.create_flow_run(stage, tags=[placed.tag], state=Running())
    assert find_same_work(client, placed, never) == silent.id
    client.set_flow_run_state(silent.id, Crashed(message=SILENT), force=True)
    correct = threading.Timer(4.0, lambda: client.set_flow_run_state(silent.id, Running(), force=True))
    correct.start()
    assert find_same_work(client, placed, never) == silent.id
    correct.join()
    client.set_flow_run_state(silent.id, Crashed(message="its worker died"), force=True)
    assert find_same_work(client, placed, never) is None


def test_a_lock_file_that_cannot_be_opened_is_refused_before_the_run_works(tmp_path: Path) -> None:
    spec = pipeline_spec(schedule={"cron": "@daily", "resource": f"{tmp_path}/none/gpu.lock"})
    with pytest.raises(ConfigError, match="TG0110") as refused:
        check_resource(spec)
    assert refused.value.where == "schedule.resource"
    (tmp_path / "none").mkdir()
    check_resource(spec)
    check_resource(pipeline_spec(schedule={"cron": "@daily", "resource": "gpu"}))


def test_a_file_without_schedules_is_refused(empty_workplace: ForkedWorkplace) -> None:
    config = empty_workplace.folder / "pipelines.yaml"
    with pytest.raises(ConfigError, match="TG0159"):
        deploy.automatic_pipelines(load_file(config))
