"""MLflow runs on a real SQLite store: idempotent, silent on the screen, with known errors."""

from __future__ import annotations

import json
import math
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy.sql

from schemas.errors import ServiceError
from schemas.release import RunRecord
from tasks.release.tracking import (
    RUN_TAG,
    RunFiles,
    as_service_error,
    begin_run,
    choose_uri,
    complete_run,
    end_runs,
    log_points,
    open_client,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

Record = Callable[..., RunRecord]


@pytest.fixture
def curves(tmp_path: Path) -> Path:
    """Three training steps, as tasks/train writes them."""
    path = tmp_path / "curves.parquet"
    table = {"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "validation_loss": [None, None, 1.5], "seconds": [1.0] * 3}
    pq.write_table(pa.table(table), path)
    return path


def everything(client: MlflowClient, run: str) -> dict[str, object]:
    """Everything that MLflow shows of a run, except times."""
    found = client.get_run(run)
    return {
        "status": found.info.status,
        "ended": found.info.end_time,
        "data": (found.data.params, found.data.metrics, found.data.tags),
        "inputs": [entry.dataset.to_dictionary() for entry in found.inputs.dataset_inputs],
        "curves": {
            name: [(point.step, point.value) for point in client.get_metric_history(run, name)]
            for name in found.data.metrics
        },
        "files": sorted(file.path for file in client.list_artifacts(run)),
    }


def test_logging_a_run_twice_makes_one_run(
    client: MlflowClient, uri: str, make_record: Record, curves: Path, tmp_path: Path
) -> None:
    record = make_record("twice")
    (tmp_path / "decision.md").write_text("# HOLD\n")
    logged = []
    for _ in range(2):
        run = begin_run(client, record, experiment="tunegate", uri=uri)
        complete_run(client, run, record, files=RunFiles([tmp_path / "decision.md"], curves), uri=uri)
        logged.append((run, everything(client, run)))
    assert logged[0] == logged[1]
    seen = logged[0][1]
    assert seen["status"] == "FINISHED"
    assert seen["files"] == ["decision.md"]
    assert seen["curves"]["loss"] == [(1, 3.0), (2, 2.0), (3, 1.0)]  # type: ignore[index]
    assert seen["curves"]["validation_loss"] == [(3, 1.5)]  # type: ignore[index]
    assert seen["data"][0] == record.params  # type: ignore[index]
    assert seen["data"][1]["zero_shot/exact"] == 0.1  # type: ignore[index]


def test_points_sent_live_are_kept_and_missing_ones_are_added(
    client: MlflowClient, uri: str, make_record: Record, curves: Path
) -> None:
    record = make_record("live")
    run = begin_run(client, record, experiment="tunegate", uri=uri)
    log_points(client, run, [(1, {"loss": 3.04}), (3, {"loss": 1.04}), (4, {"loss": math.nan})], uri=uri)
    assert client.get_run(run).info.status == "RUNNING"
    complete_run(client, run, record, files=RunFiles(curves=curves), uri=uri)
    history = everything(client, run)["curves"]
    assert sorted(history["loss"]) == [(1, 3.04), (2, 2.0), (3, 1.04)]  # type: ignore[index]
    assert history["validation_loss"] == [(3, 1.5)]  # type: ignore[index]


def test_a_dataset_has_the_sha256_of_its_whole_content(client: MlflowClient, uri: str, make_record: Record) -> None:
    record = make_record("digests")
    run = begin_run(client, record, experiment="tunegate", uri=uri)
    complete_run(client, run, record, uri=uri)
    [entry] = client.get_run(run).inputs.dataset_inputs
    assert json.loads(entry.dataset.profile) == {"num_rows": 1234, "sha256": "ab" * 32}
    assert json.loads(entry.dataset.source) == {"sha256": "ab" * 32}
    assert ("ab" * 32).startswith(entry.dataset.digest)
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]


def test_names_that_mlflow_refuses_are_made_legal(client: MlflowClient, uri: str, make_record: Record) -> None:
    record = make_record("names", params={"gates.slice(region=süd)": "x" * 9000}, metrics={"exact[süd]": 1.0})
    run = begin_run(client, record, experiment="tunegate", uri=uri)
    complete_run(client, run, record, uri=uri)
    data = client.get_run(run).data
    assert len(data.params["gates.slice_region_s_d_"]) == 6000
    assert data.metrics == {"exact_s_d_": 1.0}


def test_dead_runs_are_ended_and_live_ones_are_not(client: MlflowClient, uri: str, make_record: Record) -> None:
    runs = {
        name: begin_run(client, make_record(name), experiment="deaths", uri=uri)
        for name in ("failed", "killed", "alive")
    }
    ended = end_runs(client, {"failed": "FAILED", "killed": "KILLED"}, experiment="deaths", uri=uri)
    assert ended == 2
    assert {name: client.get_run(run).info.status for name, run in runs.items()} == {
        "failed": "FAILED", "killed": "KILLED", "alive": "RUNNING",
    }  # fmt: skip
    assert end_runs(client, {"failed": "FAILED"}, experiment="deaths", uri=uri) == 0


def test_an_unreachable_server_fails_in_seconds_without_showing_the_login() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://ada:secret@127.0.0.1:{port}"
    client, begun = open_client(uri), time.monotonic()
    with pytest.raises(ServiceError, match="TG0710") as caught:
        begin_run(client, RunRecord(run_id="r", pipeline="p"), experiment="e", uri=uri)
    assert time.monotonic() - begun < 30
    assert "secret" not in str(caught.value)
    assert str(port) in str(caught.value)
    assert caught.value.transient


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A server that accepts and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield server.getsockname()[1]


def test_a_silent_server_fails_after_its_timeout(silent_server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    uri = f"http://127.0.0.1:{silent_server}"
    with pytest.raises(ServiceError, match="TG0710"):
        begin_run(open_client(uri), RunRecord(run_id="r", pipeline="p"), experiment="e", uri=uri)


def test_a_locked_store_is_a_service_error_and_works_again_afterwards(
    tmp_path: Path, make_record: Record, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # MLflow has no setting for the 20 s that it waits for a lock.
    text = sqlalchemy.sql.text
    monkeypatch.setattr(sqlalchemy.sql, "text", lambda query: text(query.replace("20000;", "1000;")))
    uri = choose_uri("", None, home=tmp_path)
    record = make_record("locked")
    run = begin_run(open_client(uri), record, experiment="e", uri=uri)
    with closing(sqlite3.connect(tmp_path / "mlflow" / "mlflow.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        with pytest.raises(ServiceError, match="database is locked"):
            complete_run(open_client(uri), run, record, uri=uri)
        assert 1 <= time.monotonic() - begun < 20
    assert capfd.readouterr().err == ""
    complete_run(open_client(uri), run, record, uri=uri)
    assert open_client(uri).get_run(run).data.tags[RUN_TAG] == "locked"


def test_a_damaged_store_is_a_service_error(tmp_path: Path, make_record: Record) -> None:
    uri = choose_uri("", None, home=tmp_path)
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(ServiceError, match="TG0710"):
        begin_run(open_client(uri), make_record("r"), experiment="e", uri=uri)


def test_the_pipelines_uri_takes_precedence_over_the_environments() -> None:
    home = Path("/srv/tunegate")
    assert choose_uri("http://a", "http://b", home=home) == "http://a"
    assert choose_uri("", "http://b", home=home) == "http://b"
    assert choose_uri("", None, home=home).startswith("sqlite:////srv/tunegate/")


def test_our_own_errors_are_passed_through() -> None:
    from schemas.errors import StorageError

    with pytest.raises(StorageError, match="TG0510"), as_service_error("sqlite:///x"):
        raise StorageError("file missing", code="TG0510")
