"""The local servers: on loopback, found again, stopped whole, quiet."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest

from flows.servers import client_environment, ensure_mlflow, ensure_prefect, running, stop_all
from schemas.errors import ServiceError

OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}


@pytest.mark.server
def test_both_servers_start_once_answer_on_loopback_and_stop(tmp_path: Path) -> None:
    try:
        prefect = ensure_prefect(tmp_path, environ=OUTSIDE)
        mlflow = ensure_mlflow(tmp_path, environ=OUTSIDE)
        assert prefect is not None
        assert ensure_prefect(tmp_path, environ=OUTSIDE) == prefect  # the same process, not a second one
        assert {server.kind for server in running(tmp_path)} == {"prefect", "mlflow"}
        for server, path in ((prefect, "/api/health"), (mlflow, "/health")):
            assert server.url.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(server.url + path, timeout=10) as response:
                assert response.status == 200
            assert Path(server.log).stat().st_size > 0
    finally:
        stopped = stop_all(tmp_path)
    assert {server.kind for server in stopped} == {"prefect", "mlflow"}
    assert running(tmp_path) == ()
    assert not any(Path(f"/proc/{server.pid}").exists() for server in stopped)


def test_a_server_of_yours_is_left_alone(tmp_path: Path) -> None:
    assert ensure_prefect(tmp_path, environ={"PREFECT_API_URL": "http://prefect.example:4200/api"}) is None
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_cannot_start_is_told_with_its_log(tmp_path: Path) -> None:
    # A Python without site-packages: the module is not found and the process ends at once.
    environ = {"PATH": os.environ["PATH"], "PYTHONHOME": str(tmp_path / "nowhere")}
    with pytest.raises(ServiceError, match="ended with exit code") as caught:
        ensure_prefect(tmp_path, environ=environ)
    assert caught.value.where == str(tmp_path / "prefect" / "server.log")
    assert caught.value.exit_code == 7


def test_a_stale_state_file_is_no_server(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    state = '{"kind": "prefect", "url": "http://127.0.0.1:9", "pid": 1, "started": "0", "log": "x"}'
    (tmp_path / "prefect" / "server.json").write_text(state)
    assert running(tmp_path) == ()
    assert stop_all(tmp_path) == ()


def test_clients_send_no_telemetry_and_use_the_given_server() -> None:
    environment = client_environment(None)
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["PREFECT_SERVER_EPHEMERAL_ENABLED"] == "false"
    assert "PREFECT_API_URL" not in environment
