"""MLflow as a real server: on Postgres, and with logins."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from flows.champion.mlflow_sync import synchronise
from flows.ledger.promotions import Waits
from flows.ledger.rows import RunVerdict
from flows.workspace.servers import MLFLOW_ENVIRONMENT, free_port
from schemas.errors import ServiceError
from tasks.release.tracking import open_client
from tasks.storage.sealed_folder import verify
from tests.support.place import Place, alias_version
from tests.support.postgres import Postgres

pytestmark = pytest.mark.server
STARTS_WITHIN_S = 240


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for answers, for busy machines."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "150")


@contextmanager
def process(command: list[str], folder: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that logs to `folder/log` until the end of the block."""
    with (folder / "log").open("ab") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True, **options)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, 9)
            started.wait()


def wait_until(answers: Any, started: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not answers():
        assert started.poll() is None, (folder / "log").read_text()[-2000:]
        assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
        time.sleep(0.2)


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@contextmanager
def mlflow_server(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Iterator[str]:
    """`mlflow server` that serves artifacts, so clients reach them through it, as on another machine."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--artifacts-destination", (folder / "artifacts").as_uri(), *arguments,
    ]  # fmt: skip
    with process(command, folder, env={**os.environ, **MLFLOW_ENVIRONMENT, **(environ or {})}) as started:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_healthy(url), started, folder)
        yield url


def promoted_and_rolled_back(place: Place, uri: str, scratch: Path) -> None:
    """The whole life of a name with this MLflow; the evaluated bytes are registered."""
    served = replace(place.settings, mlflow_tracking_uri=uri)
    place.promote(1, after=None)
    place.record(2, "PROMOTE")
    place.ledger.promote(
        "replies", expected="1", version="2", verdict=RunVerdict("run-2", "better"), waits=Waits(approval=True)
    )
    assert synchronise(place.ledger, served) is None
    assert aliases(uri) == {"previous": None, "champion": "1", "challenger": "2"}
    place.ledger.approve("run-2", actor="ada")
    assert synchronise(place.ledger, served) is None
    assert aliases(uri) == {"previous": "1", "champion": "2", "challenger": None}
    client = open_client(uri)
    from mlflow.artifacts import download_artifacts

    for number in (1, 2):
        row = place.ledger.candidate("replies", str(number))
        assert row is not None
        assert row.mlflow_version is not None
        version = client.get_model_version("replies", row.mlflow_version)
        local = Path(download_artifacts(artifact_uri=version.source, dst_path=str(scratch / "model"), tracking_uri=uri))
        assert verify(local / "data" / row.ref.bundle.root.name) == row.ref.bundle.digest
        assert version.tags["tunegate.bundle"] == row.ref.bundle.digest
        shutil.rmtree(local)
    place.ledger.rollback("replies", reason="customers complain")
    place.forget()  # everything is sent again
    assert synchronise(place.ledger, served) is None
    assert aliases(uri) == {"previous": None, "champion": "1", "challenger": None}
    assert len(client.search_model_versions("name = 'replies'")) == 2
    shown = replace(place, settings=served).models()
    assert [(model["version"], model["aliases"], model["made_by"]) for model in shown] == [
        ("1", ["champion"], ["run-1"]), ("2", [], ["run-2"])
    ]  # fmt: skip
    assert [model["scores"] for model in shown] == [
        [(f"run-{number}", "exact", 0.5, "small-held-out")] for number in (1, 2)
    ]  # fmt: skip


def aliases(uri: str) -> dict[str, str | None]:
    client = open_client(uri)
    return {
        alias: alias_version(client, name="replies", alias=alias, uri=uri)
        for alias in ("previous", "champion", "challenger")
    }


def test_a_server_on_postgres_follows_the_ledger(place: Place, postgres: Postgres, tmp_path: Path) -> None:
    store = postgres.fresh().replace("postgresql://", "postgresql+psycopg2://")
    with mlflow_server(tmp_path / "server", "--backend-store-uri", store) as uri:
        promoted_and_rolled_back(place, uri, tmp_path)


def test_a_server_with_logins_follows_the_ledger_for_an_ordinary_user(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, admin, user = tmp_path / "server", secrets.token_hex(12), secrets.token_hex(12)
    folder.mkdir()
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder / 'auth.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "auth_cache_ttl_seconds = 60\n"  # a password check takes a tenth of a second, and each request has several
    )
    environ = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": admin,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
    }
    shutil.copy(place.home / "mlflow" / "mlflow.db", folder / "mlflow.db")
    store = f"sqlite:///{folder / 'mlflow.db'}"
    with mlflow_server(folder, "--backend-store-uri", store, "--app-name", "basic-auth", environ=environ) as uri:
        login = b64encode(f"admin:{admin}".encode()).decode()
        request = urllib.request.Request(
            f"{uri}/api/2.0/mlflow/users/create",
            json.dumps({"username": "tunegate", "password": user}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Basic {login}"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.status == 200

        place.promote(7, after=None, name="refused")
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            monkeypatch.delenv(name, raising=False)
        for password in (None, "wrong-password-1"):
            if password is not None:
                monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "tunegate")
                monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            late = synchronise(place.ledger, replace(place.settings, mlflow_tracking_uri=uri))
            assert isinstance(late, ServiceError)
            assert late.code == "TG0710"
            assert "wrong-password" not in str(late)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", user)
        promoted_and_rolled_back(place, uri, tmp_path)
        assert alias_version(open_client(uri), name="refused", alias="champion", uri=uri) == "1"


def test_a_webhook_of_the_server_gets_each_change_of_the_registry_once(place: Place, tmp_path: Path) -> None:
    """Promotion and rollback, and everything sent a second time."""
    events: list[tuple[str, str, str]] = []

    class WebhookReceiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            data = event["data"]
            events.append((f"{event['entity']}.{event['action']}", data.get("alias", ""), str(data.get("version", ""))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), WebhookReceiver)
    Thread(target=receiver.serve_forever, daemon=True).start()
    shutil.copy(place.home / "mlflow" / "mlflow.db", tmp_path / "served.db")
    environ = {"MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true", "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http"}
    store = f"sqlite:///{tmp_path / 'served.db'}"
    with receiver, mlflow_server(tmp_path / "server", "--backend-store-uri", store, environ=environ) as uri:
        open_client(uri).create_webhook(
            "changes",
            f"http://127.0.0.1:{receiver.server_port}",
            ["model_version.created", "model_version_alias.created", "model_version_alias.deleted"],
        )
        served = replace(place.settings, mlflow_tracking_uri=uri)
        place.promote(1, after=None)
        assert synchronise(place.ledger, served) is None
        place.promote(2, after="1")
        assert synchronise(place.ledger, served) is None
        place.ledger.rollback("replies", reason="customers complain")
        for _ in range(2):
            assert synchronise(place.ledger, served) is None
            place.forget()
        expected = [
            ("model_version.created", "", "1"), ("model_version_alias.created", "champion", "1"),
            ("model_version.created", "", "2"), ("model_version_alias.created", "previous", "1"),
            ("model_version_alias.created", "champion", "2"),
            ("model_version_alias.deleted", "previous", ""), ("model_version_alias.created", "champion", "1"),
        ]  # fmt: skip
        deadline = time.monotonic() + 60
        while len(events) < len(expected) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)  # for one too many
        receiver.shutdown()
    assert sorted(events) == sorted(expected)
