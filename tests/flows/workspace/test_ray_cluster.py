"""`engine: ray` without what it needs is reported before anything runs."""

import importlib.util
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flows.cli.planning import plan
from flows.run.open_run import open_run
from flows.views import doctor as health
from flows.views.doctor import Patient, examine
from flows.workspace.ray_cluster import check_cluster, place_of
from flows.workspace.settings import Settings, load_settings
from schemas.errors import ConfigError, ServiceError, StorageError
from schemas.load import load_file
from tests.support.specs import SMALL_FILE, pipeline_spec

DECLARED = SMALL_FILE.replace("    source:", "    engine: ray\n    source:")
RAY = pipeline_spec(engine="ray")


@pytest.fixture
def listening() -> Iterator[str]:
    """An address with a listener."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def complete(listening: str, tmp_path: Path) -> Settings:
    settings = load_settings(tmp_path / "pipelines.yaml", environ={})
    return replace(settings, ray_address=listening, shared_storage=f"file://{tmp_path / 'shared'}")


def test_a_pipeline_is_local_by_default(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "pipelines.yaml", environ={})
    assert check_cluster(pipeline_spec(), settings) is None


@pytest.mark.needs_extra("ray")
def test_a_complete_setup_passes_and_leaves_no_file(complete: Settings, tmp_path: Path) -> None:
    place = check_cluster(RAY, complete)
    assert place is not None
    assert place.address == complete.ray_address
    assert not list((tmp_path / "shared").iterdir())


@pytest.mark.parametrize("missing", ["ray_address", "shared_storage"])
def test_an_unset_variable_is_named(complete: Settings, missing: str) -> None:
    with pytest.raises(ConfigError, match="TG0119") as caught:
        place_of(RAY, replace(complete, **{missing: None}))
    assert {"ray_address": "RAY_ADDRESS", "shared_storage": "TUNEGATE_SHARED"}[missing] in caught.value.message


def test_a_missing_extra_is_reported(complete: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    with pytest.raises(ConfigError, match="TG0112"):
        check_cluster(RAY, complete)


@pytest.mark.needs_extra("ray")
def test_an_address_without_a_listener_is_reported(complete: Settings) -> None:
    with pytest.raises(ServiceError, match="TG0723"):
        check_cluster(RAY, replace(complete, ray_address="127.0.0.1:1"))


@pytest.mark.needs_extra("ray")
def test_read_only_storage_is_reported(complete: Settings, tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("a file is in its place")
    with pytest.raises(StorageError, match="TG0568"):
        check_cluster(RAY, complete)


def test_plan_run_and_doctor_report_it_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RAY_ADDRESS", "TUNEGATE_SHARED"):
        monkeypatch.delenv(variable, raising=False)
    config = tmp_path / "pipelines.yaml"
    config.write_text(DECLARED)
    with pytest.raises(ConfigError, match="TG0119"):
        plan(pipeline="replies", config=config, as_json=True)
    spec = load_file(config).get("replies")
    with pytest.raises(ConfigError, match="TG0119"), open_run(spec, load_settings(config), root=tmp_path):
        pass
    assert not (tmp_path / ".tunegate").exists()
    (finding,) = examine(health.cluster, Patient(load_settings(config), config, {}))
    assert finding.state == "bad"
    assert "TG0119" in finding.message
