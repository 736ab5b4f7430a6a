"""The manifests for a cluster: valid by Kubernetes' own schemas, locked down, and as what runs elsewhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from tests.infra.kubernetes.test_manifests import KINDS, OF_RAY, VERSION, job, manifests, read


@pytest.fixture(scope="module")
def folder(project: Path) -> Path:
    return project / "infra" / "kubernetes"


def pods(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod's name and spec, that of the jobs of both pools included."""
    for document in manifests(folder):
        if document["kind"] == OF_RAY:
            for name, template in ray_pods(document):
                yield name, template["spec"]
        if document["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]
    for kind in KINDS:
        yield f"job of {kind}", job(folder, kind)["spec"]["template"]["spec"]


def ray_pods(cluster: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pods that the operator makes of a Ray cluster."""
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        yield f"ray {group.get('groupName', 'head')}", group["template"]


def test_the_ray_cluster_is_one_by_its_operators_schema(folder: Path, project: Path) -> None:
    (cluster,) = (each for each in manifests(folder) if each["kind"] == OF_RAY)
    schema = Draft202012Validator(json.loads((project / "tests/infra/raycluster.schema.json").read_bytes()))
    schema.validate(cluster["spec"])
    assert not schema.is_valid({**cluster["spec"], "speck": {}})
    assert cluster["apiVersion"] == "ray.io/v1"
    (told,) = read(folder / "ray" / "kustomization.yaml")
    image = "{newName}:{newTag}".format(**told["images"][0])
    for name, pod in ray_pods(cluster):
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod["spec"]}
        kubernetes_validate.validate(document, VERSION, strict=True)
        assert pod["spec"]["containers"][0]["image"] == image, name
    worker = next(pod for name, pod in pods(folder) if name == "worker-ray")["containers"][0]
    assert f"--address={cluster['metadata']['name']}-head-svc:6379" in worker["command"][-1]
    secret = next(each for each in worker["env"] if each["name"] == "RAY_AUTH_TOKEN")["valueFrom"]["secretKeyRef"]
    assert cluster["spec"]["authOptions"]["secretName"] == secret["name"]


@pytest.mark.parametrize("kind", [*KINDS, "ray"])
def test_every_file_is_part_of_it_or_is_applied_by_hand(folder: Path, kind: str) -> None:
    (told,) = read(folder / kind / "kustomization.yaml")
    here = {path.name for path in (folder / kind).glob("*.yaml")} - {"kustomization.yaml", "endpoint.yaml"}
    assert here == {name for name in told["resources"] if name.endswith(".yaml")}
    if (kustomize := shutil.which("kustomize")) is None:
        return  # the rest is what it would make of them
    done = subprocess.run([kustomize, "build", str(folder / kind)], capture_output=True, text=True, check=True)
    made = list(YAML(typ="safe").load_all(done.stdout))
    assert {document["metadata"].get("namespace", "tunegate") for document in made} == {"tunegate"}
    assert all("tunegate:kubernetes" in str(each) for each in made if "image': 'tunegate" in str(each))
    for document in (each for each in made if each["kind"] != OF_RAY):
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_no_pod_may_do_more_than_it_must(folder: Path) -> None:
    for name, pod in pods(folder):
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        reaches_cluster = pod.get("serviceAccountName") == "worker"
        assert reaches_cluster or pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert not context["allowPrivilegeEscalation"], name
            assert context["readOnlyRootFilesystem"], name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name
            assert ":latest" not in container["image"], name
            assert "ports" not in container or {"readinessProbe", "livenessProbe"} <= container.keys(), name


def test_no_secret_stands_in_a_file(folder: Path) -> None:
    assert not any(document["kind"] == "Secret" for document in manifests(folder))
    named = re.compile(r"PASSWORD|TOKEN|KEY$")
    for name, pod in pods(folder):
        for entry in (each for container in pod["containers"] for each in container.get("env", ())):
            if named.search(entry["name"]):
                assert entry["valueFrom"]["secretKeyRef"]["name"] == "tunegate", name


def test_processes_have_the_settings_that_they_have_elsewhere(folder: Path, project: Path) -> None:
    lines = (project / "infra" / "environment.env").read_text().splitlines()
    elsewhere = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    settings = next(each["data"] for each in manifests(folder) if each["metadata"]["name"] == "settings")
    assert elsewhere.items() <= settings.items()
    compose = YAML(typ="safe").load((project / "infra" / "compose.yaml").read_text())
    for name in ("prefect", "mlflow"):
        pod = next(pod for each, pod in pods(folder) if each == name)
        there = compose["services"][name]["entrypoint"]
        assert [word for word in there if not word.startswith("--allowed-hosts")] == [
            word
            for word in pod["containers"][0]["command"]
            if not word.startswith("--allowed-hosts") and word != "--no-services"
        ]


def test_what_a_pod_asks_for_is_there(folder: Path) -> None:
    """Claims, settings, services and what is made by hand; named as the documentation names it."""
    by_hand = {"ConfigMap": {"pipelines"}, "Secret": {"tunegate"}}
    found = manifests(folder)
    generated = {"job-template", "gpu-job-template"}
    there = {
        kind: {each["metadata"]["name"] for each in found if each["kind"] == kind} | by_hand.get(kind, set())
        for kind in ("ConfigMap", "PersistentVolumeClaim", "Secret", "Service")
    }
    for name, pod in pods(folder):
        for volume in pod.get("volumes", ()):
            if "configMap" in volume:
                assert volume["configMap"]["name"] in there["ConfigMap"] | generated, name
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in there["PersistentVolumeClaim"], name
        for source in (each for container in pod["containers"] for each in container.get("envFrom", ())):
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source:
                    assert source[key]["name"] in there[kind], name
    settings = " ".join(str(each["data"]) for each in found if each["kind"] == "ConfigMap")
    hosts = {"redis", *re.findall(r"(?:://|@)(?:[\w]+@)?([a-z]+)[:/]", settings)}
    assert hosts <= there["Service"], hosts
