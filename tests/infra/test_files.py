"""Image, compose file and dashboard agree with the stack and the program."""

import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.views.metrics import exposition
from flows.workspace.servers import MLFLOW_ENVIRONMENT, PREFECT_ENVIRONMENT
from flows.workspace.settings import Settings
from infra.stack.place import DATABASES, PORTS
from infra.stack.services import IN_CONTAINERS, LOGINS
from tasks.release.endpoint_metrics import EndpointMetrics
from tests.support.project import PROJECT

INFRA = PROJECT / "infra"
OURS = ("prefect", "mlflow", "worker", "deploy", "endpoint")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(INFRA / "compose.yaml"))


def test_containers_publish_the_servers_of_the_stack_on_loopback_only(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(PORTS) | {"deploy"} == set(services)
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {
        "prefect": ["127.0.0.1:4200:4200"], "mlflow": ["127.0.0.1:5000:5000"], "endpoint": ["127.0.0.1:8000:8000"],
    }  # fmt: skip
    assert compose["networks"]["inside"] == {"internal": True}
    for name, service in services.items():
        assert service["networks"] == (["inside", "outside"] if name in published else ["inside"]), name
    created = re.findall(r"CREATE DATABASE (\w+)", (INFRA / "postgres" / "databases.sql").read_text())
    assert {services["postgres"]["environment"]["POSTGRES_DB"], *created} == set(DATABASES)


def test_every_published_server_has_a_login_that_its_clients_use(compose: dict[str, Any]) -> None:
    """A variable with `:?` must be set, or compose starts nothing."""
    prefect, mlflow, worker, endpoint = (
        compose["services"][name]["environment"] for name in ("prefect", "mlflow", "worker", "endpoint")
    )
    assert prefect["PREFECT_SERVER_API_AUTH_STRING"] == "tunegate:${PREFECT_PASSWORD}"
    assert worker["PREFECT_API_AUTH_STRING"].startswith("tunegate:${PREFECT_PASSWORD:?")
    started = compose["services"]["mlflow"]["entrypoint"]
    assert "--app-name=basic-auth" in started
    assert [each.partition("=")[0] for each in started if "allowed" in each] == [
        "--allowed-hosts",
        "--cors-allowed-origins",
    ]
    assert mlflow["MLFLOW_AUTH_ADMIN_PASSWORD"] == "${MLFLOW_PASSWORD}"
    assert mlflow["MLFLOW_AUTH_ADMIN_USERNAME"] == worker["MLFLOW_TRACKING_USERNAME"]
    assert worker["MLFLOW_TRACKING_PASSWORD"].startswith("${MLFLOW_PASSWORD:?")
    assert mlflow["MLFLOW_AUTH_CONFIG_PATH"] == f"/app/infra/{LOGINS.name}"
    logins = configparser.ConfigParser()
    logins.read(LOGINS)
    assert logins["mlflow"]["database_uri"] == IN_CONTAINERS
    assert logins["mlflow"]["default_permission"] == "READ"
    assert "TUNEGATE_ENDPOINT_TOKEN" in endpoint  # outside loopback the endpoint does not start without one


def test_our_containers_write_only_to_their_volumes_and_contain_no_secret(compose: dict[str, Any]) -> None:
    no_telemetry = {**PREFECT_ENVIRONMENT, **MLFLOW_ENVIRONMENT}
    for name in OURS:
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert no_telemetry.items() <= service["environment"].items(), name
        for variable, value in service["environment"].items():
            if re.search("PASSWORD|TOKEN|SECRET|AUTH_STRING", variable):
                assert re.fullmatch(r"(tunegate:)?\$\{\w+(:[?-][^}]*)?\}", value), (name, variable)
        assert not re.search("PASSWORD", str([*service.get("entrypoint", []), *service["command"]]))


def test_the_image_has_a_cpu_and_a_gpu_target_and_neither_runs_as_root() -> None:
    stages = re.split(r"^FROM ", (INFRA / "Dockerfile").read_text(), flags=re.M)[1:]
    names = {stage.splitlines()[0].rpartition(" ")[2]: stage for stage in stages}
    assert set(names) == {"base", "code", "gpu", "cpu"}
    for name in ("gpu", "cpu"):
        assert "\nUSER 10001:10001\n" in names[name]
        assert 'ENTRYPOINT ["tunegate"]' in names[name]


def test_the_dashboard_uses_only_metrics_that_exist(tmp_path: Path) -> None:
    dashboard = json.loads((INFRA / "grafana" / "tunegate.json").read_bytes())
    required = {
        metric
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for metric in re.findall(r"tunegate_\w+", target["expr"])
    }
    documented = set(re.findall(r"`(tunegate_\w+)`", (PROJECT / "docs" / "reference" / "metrics.md").read_text()))
    documented |= {f"{name}_bucket" for name in documented}
    assert required <= documented
    assert len(required) > 10
    settings = Settings(home=tmp_path, cache=tmp_path / "cache", prefect_api_url=None, mlflow_tracking_uri=None)
    text = EndpointMetrics(lambda: exposition(settings)).text().decode()
    exported = set(re.findall(r"^# TYPE (\w+)", text, re.M))
    exported |= {f"{name}_bucket" for name in exported}
    assert required <= exported
    assert {"tunegate_answers_total", "tunegate_certificate_evidence"} <= required
    positions = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(position["x"] + position["w"] <= 24 for position in positions)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(positions)
