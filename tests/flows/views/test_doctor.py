"""`tunegate ops doctor`: each check finds its planted fault and suggests a fix."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import duckdb
import pytest

from flows.ledger.ledger import Ledger
from flows.views import doctor as health
from flows.views.doctor import CHECKS, Check, Patient, Symptom, examine
from flows.workspace.lock import pipeline_lock
from flows.workspace.settings import Settings
from tests.support.desk_server import send, serving
from tests.support.place import Place
from tests.support.specs import SMALL_FILE

FINE = SMALL_FILE.replace("replies", "small")


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    """A fresh folder with a valid file and no state."""
    (tmp_path / "pipelines.yaml").write_text(FINE)
    settings = Settings(
        home=tmp_path / "home", cache=tmp_path / "cache", prefect_api_url=None, mlflow_tracking_uri=None
    )
    return Patient(settings, tmp_path / "pipelines.yaml", {})


def states(check: Check, patient: Patient) -> list[tuple[str, str]]:
    return [(finding.what, finding.state) for finding in examine(check, patient)]


def one(check: Check, patient: Patient) -> Symptom:
    (finding,) = examine(check, patient)
    return finding


def test_a_fresh_folder_passes_and_every_finding_has_a_fix(patient: Patient) -> None:
    found = [finding for check in CHECKS for finding in examine(check, patient)]
    assert {finding.what for finding in found} >= {
        "python", "torch", "names", "arithmetic", "device", "config", "disk", "cache", "locks", "ledger", "servers",
    }  # fmt: skip
    assert [finding for finding in found if finding.state == "bad"] == []
    assert all(finding.fix for finding in found if finding.state != "ok")
    assert not patient.settings.home.exists()  # the checks create nothing


def test_a_broken_file_is_a_finding_and_stops_no_other_check(patient: Patient) -> None:
    patient.config.write_text(FINE.replace("exact", "exakt"))
    assert one(health.config, patient).state == "bad"
    assert "did you mean" in one(health.config, patient).fix or "TG0" in one(health.config, patient).message
    assert states(health.mlflow, patient) == []


def test_another_distribution_with_our_names_is_found(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"flows": ["tunegate", "workflow-kit"], "tasks": ["tunegate"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: owners)
    found = one(health.name_clashes, patient)
    assert (found.state, found.message, found.fix) == (
        "bad",
        "workflow-kit also ships `flows`",
        "uninstall workflow-kit",
    )


def test_more_threads_than_cores_are_reported(patient: Patient) -> None:
    import torch

    before = torch.get_num_threads()
    assert next(examine(health.torch, patient)).state == "ok"
    try:
        torch.set_num_threads((os.cpu_count() or 1) + 1)
        finding = next(examine(health.torch, patient))
    finally:
        torch.set_num_threads(before)
    assert finding.state == "warn"
    assert finding.fix.startswith("set OMP_NUM_THREADS")


def test_a_locked_pipeline_is_named_with_its_run(patient: Patient) -> None:
    with pipeline_lock(patient.settings.home, "small", wait_s=0, run_id="run-7"):
        assert "small is held by run run-7" in one(health.locks, patient).message
    assert one(health.locks, patient).message == "no pipeline is held"


def test_a_damaged_ledger_is_found(patient: Patient) -> None:
    patient.settings.home.mkdir(mode=0o700)
    assert one(health.ledger, patient).message == "no run yet"
    (patient.settings.home / "ledger.sqlite").write_bytes(b"no database" * 100)
    assert one(health.ledger, patient).state == "bad"


def test_warehouses_are_opened_and_counted(patient: Patient) -> None:
    folder = patient.settings.home / "warehouse" / "small"
    folder.mkdir(parents=True)
    with duckdb.connect(str(folder / "warehouse.duckdb")) as client:
        client.execute("CREATE TABLE fate AS FROM range(3); CREATE TABLE snapshot AS SELECT 3 AS n_read")
    assert one(health.warehouses, patient).message == "small: 3 rows, each with its fate"
    with duckdb.connect(str(folder / "warehouse.duckdb")) as client:
        client.execute("UPDATE snapshot SET n_read = 4")
    assert (one(health.warehouses, patient).state, one(health.warehouses, patient).fix) == (
        "bad",
        "tunegate data curate small",
    )
    (folder / "warehouse.duckdb").write_bytes(b"x" * 5000)
    assert one(health.warehouses, patient).state == "bad"


def test_a_damaged_mlflow_store_is_found(patient: Patient) -> None:
    path = patient.settings.home / "mlflow" / "mlflow.db"
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE runs (id TEXT)")
    assert one(health.mlflow_store, patient).state == "ok"
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 200 + path.read_bytes()[300:])
    assert one(health.mlflow_store, patient).state == "bad"


def test_pending_mlflow_changes_and_a_changed_champion_are_found(place: Place) -> None:
    place.promote(1, after=None)
    patient = Patient(place.settings, place.home / "pipelines.yaml", {})
    assert one(health.pending_sync, patient).fix == "tunegate ops reconcile"
    assert "TG0510" in one(health.champions, patient).message  # the files of its training never existed
    bundle = Ledger(place.home).champions()[0].bundle.root
    (bundle / "serving.json").write_text("other\n")
    found = one(health.champions, patient)
    assert (found.state, "TG0510" in found.message) == ("bad", True)


@pytest.mark.parametrize(("code", "expected"), [(200, "ok"), (401, "bad"), (500, "bad")])
def test_the_health_of_servers_is_checked(patient: Patient, code: int, expected: str) -> None:
    with serving(lambda handler: send(handler, code, {})) as url:
        with_servers = replace(
            patient, settings=replace(patient.settings, prefect_api_url=f"{url}/api", mlflow_tracking_uri=url)
        )
        assert states(health.prefect, with_servers) == [("prefect", expected)]
        assert states(health.mlflow, with_servers) == [("mlflow", expected)]
        with_login = replace(with_servers, environ={"PREFECT_API_AUTH_STRING": "a:b", "MLFLOW_TRACKING_USERNAME": "a"})
        assert states(health.prefect, with_login) == [("prefect", "ok" if code == 401 else expected)]
    assert states(health.prefect, with_servers) == [("prefect", "bad")]  # the server has stopped


def test_the_login_in_an_address_is_not_printed(patient: Patient) -> None:
    with_servers = replace(
        patient, settings=replace(patient.settings, mlflow_tracking_uri="http://u:secret@gone.invalid:5000")
    )
    (found,) = examine(health.mlflow, with_servers)
    assert found.message == "http://gone.invalid:5000 does not answer"
    assert "secret" not in found.message + found.fix


def test_an_error_in_a_check_is_a_finding_and_the_next_check_runs(patient: Patient) -> None:
    def check(_patient: Patient) -> Iterator[Symptom]:
        yield Symptom("first", "ok", "whole")
        raise TypeError("the text of a ticket")

    first, second = examine(check, patient)
    assert first.state == "ok"
    assert (second.what, second.state, second.message) == ("check", "bad", "cannot be checked (TypeError)")
