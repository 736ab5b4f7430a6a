"""The manifests for a cluster: valid by Kubernetes' own schemas, locked down, and as what runs elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from tasks.release.endpoint_metrics import EndpointMetrics

VERSION = "1.34"
KINDS = ("base", "gpu")
OF_RAY = "RayCluster"
"""A kind that Kubernetes does not know."""
PLACEHOLDER = re.compile(r"\{\{ (\w+) \}\}")


@pytest.fixture(scope="module")
def folder(project: Path) -> Path:
    return project / "infra" / "kubernetes"


def read(path: Path) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(path.read_text(encoding="utf-8")))


def manifests(folder: Path) -> list[dict[str, Any]]:
    files = [path for path in folder.glob("*/*.yaml") if path.name != "kustomization.yaml"]
    return [document for path in sorted(files) for document in read(path)]


def template(folder: Path, kind: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / kind / "job-template.json").read_bytes())
    return loaded


def job(folder: Path, kind: str) -> dict[str, Any]:
    """The job that the worker makes of the template by its defaults: a value that is all placeholder is replaced."""
    loaded = template(folder, kind)
    given = {name: form.get("default") for name, form in loaded["variables"]["properties"].items()}
    given |= {"name": "run", "env": [{"name": "A", "value": "b"}], "labels": {"a": "b"}, "command": ["prefect"]}

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            found = {key: filled(each) for key, each in value.items()}
            return {key: each for key, each in found.items() if each is not None}
        if isinstance(value, list):
            return [filled(each) for each in value]
        whole = PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
        if whole:
            return given[whole[1]]
        return PLACEHOLDER.sub(lambda match: str(given[match[1]]), value) if isinstance(value, str) else value

    made: dict[str, Any] = filled(loaded["job_configuration"]["job_manifest"])
    return made


def test_every_manifest_is_one(folder: Path) -> None:
    of_kubernetes = [each for each in manifests(folder) if each["kind"] != OF_RAY]
    found = [*of_kubernetes, *(job(folder, kind) for kind in KINDS)]
    assert len(found) > 25
    for document in found:
        kubernetes_validate.validate(document, VERSION, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**found[0], "speck": {}}, VERSION, strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_uses_the_variables_that_it_declares(folder: Path, kind: str) -> None:
    loaded = template(folder, kind)
    used = set(PLACEHOLDER.findall(json.dumps(loaded["job_configuration"])))
    assert used == loaded["variables"]["properties"].keys()


def test_the_pools_differ_in_what_a_run_may_take(folder: Path) -> None:
    base, gpu = (template(folder, kind) for kind in KINDS)
    assert base["job_configuration"] == gpu["job_configuration"]
    differ = {
        name for name, form in base["variables"]["properties"].items() if form != gpu["variables"]["properties"][name]
    }
    assert differ == {"gpus", "cpu_request", "memory_request", "memory_limit"}
    limits = job(folder, "gpu")["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"


def test_the_dashboard_asks_for_metrics_that_there_are(project: Path) -> None:
    dashboard = json.loads((project / "infra" / "grafana" / "tunegate.json").read_bytes())
    asked = {
        metric
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for metric in re.findall(r"tunegate_\w+", target["expr"])
    }
    told = set(re.findall(r"`(tunegate_\w+)`", (project / "docs" / "operations.md").read_text()))
    told |= {f"{name}_bucket" for name in told}
    assert asked <= told
    assert len(asked) > 10
    of_endpoint = EndpointMetrics().text().decode()
    assert "tunegate_requests" in of_endpoint
    assert "tunegate_request_seconds" in of_endpoint
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)
