"""Bills of materials: by CycloneDX's own schema, complete against the lock, equal for equal inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from flows.bill import bill_of_release
from flows.cli import app
from flows.engine.ledger import Ledger
from schemas.errors import SecurityError
from tasks.release.bill import Distribution, Part, bill_of_materials, installed, licence_of, read_lock, with_licences

LOCK = """\
numpy==2.4.0 ; python_full_version >= '3.12' \\
    --hash=sha256:{a} \\
    --hash=sha256:{b}
numpy==2.3.9 ; python_full_version < '3.12' \\
    --hash=sha256:{b}
Some_Package[extra]==1.0+cpu \\
    --hash=sha256:{a}
""".format(a="a" * 64, b="b" * 64)


def check(document: dict[str, Any]) -> None:
    """Hold the document against the schema."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(orjson.dumps(document).decode()) is None


def test_the_lock_is_read_with_every_version_and_hash(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(LOCK)
    assert read_lock(tmp_path / "lock") == (
        Distribution("numpy", "2.3.9", ("b" * 64,)),
        Distribution("numpy", "2.4.0", ("a" * 64, "b" * 64)),
        Distribution("some-package", "1.0+cpu", ("a" * 64,)),
    )
    assert read_lock(tmp_path / "absent") == ()


def test_what_is_installed_has_the_hashes_of_its_own_version_or_says_that_it_is_not_locked(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(LOCK)
    for name in ("numpy-2.3.9.dist-info", "some_package-2.0.dist-info", "tunegate-0.1.0.dist-info", "other.egg-info"):
        (tmp_path / name).mkdir()
    found = installed(read_lock(tmp_path / "lock"), paths=[str(tmp_path), str(tmp_path / "absent")])
    assert found == (Distribution("numpy", "2.3.9", ("b" * 64,)), Distribution("some-package", "2.0"))
    document = bill_of_materials(Part("application", "x", "1"), parts=[], distributions=found)
    check(document)
    assert [component.get("properties") for component in document["components"]] == [
        None,
        [{"name": "tunegate:locked", "value": "false"}],
    ]


def test_models_and_data_are_components_with_their_digests(tmp_path: Path) -> None:
    subject = Part("machine-learning-model", "replies", "run-1", "c" * 64, about={"method": "lora"})
    parts = [
        Part("machine-learning-model", "base", "d" * 16, "d" * 64, about={"uri": "file:base"}),
        Part("data", "replies-tickets", "e" * 16, "e" * 64, about={"train": "100"}),
        Part("application", "tunegate", "0.1.0", "not a sha256"),
    ]
    pins = (Distribution("numpy", "1.0+cpu", ("a" * 64,), "BSD-3-Clause AND MIT"),)
    document = bill_of_materials(subject, parts=parts, distributions=pins, time="2026-06-01T00:00:00+00:00")
    check(document)
    assert document["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]
    assert [component["type"] for component in document["components"]] == [
        "machine-learning-model", "data", "application", "library",
    ]  # fmt: skip
    assert document["components"][3]["purl"] == "pkg:pypi/numpy@1.0%2Bcpu"
    assert document["dependencies"][0]["dependsOn"] == sorted(c["bom-ref"] for c in document["components"])
    again = bill_of_materials(subject, parts=parts, distributions=pins, time="2026-06-01T00:00:00+00:00")
    assert again == document
    other = bill_of_materials(subject, parts=parts[:1], distributions=pins, time="2026-06-01T00:00:00+00:00")
    assert other["serialNumber"] != document["serialNumber"]


def test_the_release_lists_every_pin_of_the_lock_with_hashes_and_licences(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app(["sbom"], standalone_mode=False) == 0
    document = json.loads(capsys.readouterr().out)
    check(document)
    pins = read_lock(project / "requirements.lock")
    assert {(c["name"], c["version"]) for c in document["components"]} == {(pin.name, pin.version) for pin in pins}
    assert all(component["hashes"] for component in document["components"])
    told = {component["name"]: component.get("licenses") for component in document["components"]}
    assert told["duckdb"] == [{"license": {"name": "MIT License"}}]
    assert document["metadata"]["component"]["name"] == "tunegate"
    assert bill_of_release() == document


def test_licences_come_from_the_metadata_of_what_is_installed() -> None:
    assert licence_of("prefect").startswith("Apache")
    assert licence_of("no-such-distribution") == ""
    (found,) = with_licences([Distribution("pydantic", "0")])
    assert found.licence == "MIT"


def test_a_run_without_a_bill_says_so(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path))
    Ledger(tmp_path).start_run("r1", pipeline="p", model_name="m", input_digest="d", config_json="{}")
    with pytest.raises(SecurityError, match="TG0828"):
        app(["sbom", "r1", "-c", str(project / "pipelines.yaml")], standalone_mode=False)
