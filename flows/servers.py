"""The local servers: a private Prefect server for flows, and MLflow's UI over the same store.

Both listen on loopback, send no telemetry, keep their logs under the home folder and are found again through a small
state file. `tunegate run` starts Prefect when PREFECT_API_URL names no other server; `tunegate up` and `down` start
and stop both. It knows nothing of pipelines.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from schemas.errors import ServiceError
from tasks.files import write_json

PREFECT_ENVIRONMENT: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # ephemeral mode loses the last task runs of a process
    "PREFECT_SERVER_UI_API_URL": "/api",  # relative: right behind any port and proxy
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",  # never pickle
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}
MLFLOW_ENVIRONMENT: Mapping[str, str] = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}

START_TIMEOUT_S = 180
STOP_GRACE_S = 15

_children: list[subprocess.Popen[bytes]] = []
"""Servers started by this process: they outlive it on purpose, so nobody waits for them."""


@dataclass(frozen=True)
class Server:
    """One running server: what it is, where it answers and which process it is."""

    kind: str
    url: str
    pid: int
    started: str
    """Start time of the process as the kernel counts it: tells a recycled pid apart."""
    log: str


def ensure_prefect(home: Path, *, environ: Mapping[str, str] = os.environ) -> Server | None:
    """Start the private Prefect server unless it runs already; None when PREFECT_API_URL names another one.

    Raises:
        ServiceError: it does not answer within three minutes; the log's path is in the message.
    """
    if environ.get("PREFECT_API_URL"):
        return None
    folder = _private(home / "prefect")
    port = _free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **environ,
        **PREFECT_ENVIRONMENT,
        "PREFECT_HOME": str(folder),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
    }
    return _ensure("prefect", folder, port, command, environment, health="/api/health")


def ensure_mlflow(home: Path, *, environ: Mapping[str, str] = os.environ) -> Server:
    """Start MLflow's server over the embedded store unless it runs already.

    Raises:
        ServiceError: it does not answer within three minutes; the log's path is in the message.
    """
    folder = _private(home / "mlflow")
    port = _free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        # Files, not `mlflow-artifacts:` addresses: those could only be read and written while this server runs.
        "--no-serve-artifacts", "--default-artifact-root", (folder / "artifacts").absolute().as_uri(),
    ]  # fmt: skip
    return _ensure("mlflow", folder, port, command, {**environ, **MLFLOW_ENVIRONMENT}, health="/health")


def running(home: Path) -> tuple[Server, ...]:
    """The servers of this home folder whose processes are alive."""
    found = (_read_state(home / kind) for kind in ("prefect", "mlflow"))
    return tuple(server for server in found if server is not None)


def stop_all(home: Path) -> tuple[Server, ...]:
    """Stop the servers of this home folder; returns those that ran. SIGTERM first, SIGKILL after a grace."""
    stopped = running(home)
    for server in stopped:
        _stop(server)
        (home / server.kind / "server.json").unlink(missing_ok=True)
    return stopped


def client_environment(server: Server | None) -> dict[str, str]:
    """Variables that a process must set, before it imports Prefect, to talk to the server."""
    url = {} if server is None else {"PREFECT_API_URL": f"{server.url}/api"}
    quiet = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}  # the screen is ours; the server keeps the logs
    return {**PREFECT_ENVIRONMENT, **MLFLOW_ENVIRONMENT, **quiet, **url}


def _ensure(
    kind: str, folder: Path, port: int, command: list[str], environment: Mapping[str, str], *, health: str
) -> Server:
    alive = _read_state(folder)
    if alive is not None and _answers(alive.url + health):
        return alive
    log = folder / "server.log"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=dict(environment),
            cwd=folder, start_new_session=True,
        )  # fmt: skip
    _children.append(process)
    server = Server(kind, f"http://127.0.0.1:{port}", process.pid, _start_time(process.pid), str(log))
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _failed(kind, log, f"ended with exit code {process.returncode}")
        if _answers(server.url + health):
            write_json(folder / "server.json", asdict(server))
            return server
        time.sleep(0.2)
    _stop(server)
    raise _failed(kind, log, f"did not answer within {START_TIMEOUT_S} s")


def _failed(kind: str, log: Path, what: str) -> ServiceError:
    return ServiceError(f"the local {kind} server {what}", code="TG0701", where=str(log), hint=f"read {log}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own loopback address
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _read_state(folder: Path) -> Server | None:
    try:
        server = Server(**json.loads((folder / "server.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return server if _start_time(server.pid) == server.started != "" else None


def _start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat, or the pid itself where there is no /proc; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return str(pid)


def _stop(server: Server) -> None:
    for number, grace in ((signal.SIGTERM, STOP_GRACE_S), (signal.SIGKILL, 5)):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline:
            _reap(server.pid)
            if _start_time(server.pid) != server.started:
                return
            time.sleep(0.1)


def _reap(pid: int) -> None:
    """Collect the process when it is a child of this one: a zombie would look alive."""
    for child in _children:
        if child.pid == pid:
            child.poll()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _private(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
