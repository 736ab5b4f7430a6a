"""Image, compose file and systemd units say what the stack does: the same servers, closed in the same way."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.servers import MLFLOW_ENVIRONMENT, PREFECT_ENVIRONMENT
from infra import lint_units
from infra.stack.processes import ORDER
from tests.support.project import PROJECT

INFRA = PROJECT / "infra"
OURS = ("prefect", "mlflow", "worker", "deploy", "endpoint")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(INFRA / "compose.yaml"))


def test_containers_have_the_servers_of_the_stack_and_only_nginx_is_published(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(ORDER) | {"deploy", "nginx"} == set(services)
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
    assert services["nginx"]["ports"] == ["${TUNEGATE_LISTEN:-127.0.0.1}:8443:8443"]
    assert compose["networks"]["inside"] == {"internal": True}
    assert all(service["networks"] == ["inside"] for name, service in services.items() if name != "nginx")


def test_containers_of_ours_may_change_nothing_but_their_volumes_and_hold_no_secret(compose: dict[str, Any]) -> None:
    quiet = {**PREFECT_ENVIRONMENT, **MLFLOW_ENVIRONMENT}
    for name in OURS:
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert quiet.items() <= service["environment"].items(), name
        for variable, value in service["environment"].items():
            if re.search("PASSWORD|TOKEN|SECRET", variable):
                assert re.fullmatch(r"\$\{\w+(:[?-][^}]*)?\}", value), (name, variable)
        assert not re.search("PASSWORD", str([*service.get("entrypoint", []), *service["command"]]))


def test_every_unit_runs_a_service_of_the_stack_and_is_closed(tmp_path: Path) -> None:
    units = {path.name: path.read_text() for path in (INFRA / "systemd").glob("*.service")}
    run = {found for text in units.values() for found in re.findall(r"infra\.stack run (\w+)", text)}
    assert run == set(ORDER)
    for name, text in units.items():
        for line in ("User=tunegate", "NoNewPrivileges=yes", "ProtectSystem=strict", "UMask=0077"):
            assert f"\n{line}\n" in text, name
    wanted = (INFRA / "systemd" / "tunegate.target").read_text()
    for name in units:
        timed = name.replace(".service", ".timer")
        assert name in wanted or timed in wanted, name
    assert lint_units.main() == 0
    if shutil.which("systemd-analyze"):  # and the linter does find what is wrong
        shutil.copytree(INFRA / "systemd", tmp_path / "units")
        worker = tmp_path / "units" / "tunegate-worker.service"
        worker.write_text(worker.read_text().replace("ProtectSystem=strict", "ProtectSistem=strict"))
        assert any("ProtectSistem" in fault for fault in lint_units.lint(tmp_path / "units", tmp_path / "root"))


def test_the_image_has_a_target_for_each_place_and_none_runs_as_root() -> None:
    stages = re.split(r"^FROM ", (INFRA / "Dockerfile").read_text(), flags=re.M)[1:]
    names = {stage.splitlines()[0].rpartition(" ")[2]: stage for stage in stages}
    assert set(names) == {"base", "code", "gpu", "cpu", "kubernetes"}
    assert names["kubernetes"].startswith("gpu AS ")
    assert names["kubernetes"].rstrip().endswith("USER 10001:10001")
    for name in ("gpu", "cpu"):
        assert "\nUSER 10001:10001\n" in names[name]
        assert 'ENTRYPOINT ["tunegate"]' in names[name]
