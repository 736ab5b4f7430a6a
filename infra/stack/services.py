"""The five processes: what runs each, how to tell that it works, and what has to be there before.

They are started in order, found again by the state files of `flows/servers.py`, and each may be killed: `start` starts
what is not alive. A supervisor of the machine (`infra/systemd`) does the same and watches.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.engine.disk import private_folder
from flows.engine.ledger import Ledger
from flows.servers import Server, answers, read_state, start_time, stop
from infra.stack.place import DATABASES, POOL, Place
from schemas.load import load_file
from tasks.files import write_json

STARTS_WITHIN_S = 300.0
AUTH_INI = """[mlflow]
default_permission = READ
admin_username = admin
database_uri = {database}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


class StackError(Exception):
    """A service does not start; names its log."""


@dataclass(frozen=True)
class Service:
    """One process."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    works: Callable[[], bool]


def up(place: Place, *, tell: Callable[[str], None]) -> None:
    """Start what is not alive, in order; doing it again changes nothing.

    Raises:
        StackError: a service does not answer within five minutes.
    """
    place.prepare()
    start_postgres(place)
    tell(f"postgres  127.0.0.1:{place.ports.postgres}")
    for service in services(place):
        _start(place, service)
        tell(f"{service.name:<9} 127.0.0.1:{place.told()[service.name]}")
        if service.name == "mlflow":
            _make_user(place)
    if not any(service.name == "endpoint" for service in services(place)):
        tell("endpoint  not yet: no pipeline has a champion; `up` again after the first promotion")


def down(place: Place, *, tell: Callable[[str], None]) -> None:
    """Stop them, the last first."""
    for name in ("endpoint", "worker", "mlflow", "prefect", "postgres"):
        server = alive(place, name)
        if server is None:
            continue
        if name == "postgres":
            _stop_postgres(server)
        else:
            stop(server)
        (place.folder / name / "server.json").unlink(missing_ok=True)
        tell(f"{name} stopped")


def status(place: Place) -> dict[str, str]:
    """Service -> `works`, `silent` (alive, and does not answer) or `down`."""
    states = {}
    checks = {"postgres": place.cluster.answers, **{one.name: one.works for one in services(place)}}
    for name, works in checks.items():
        states[name] = ("works" if works() else "silent") if alive(place, name) else "down"
    return states


def services(place: Place) -> tuple[Service, ...]:
    """All but Postgres; the endpoint only once there is a champion to answer."""
    client, ports = place.process(), place.ports
    python = (sys.executable, "-m")
    loopback = ("--host", "127.0.0.1", "--port")
    prefect = {
        **client,
        "PREFECT_API_DATABASE_CONNECTION_URL": place.database("prefect", driver="+asyncpg"),
        "PREFECT_SERVER_API_AUTH_STRING": client["PREFECT_API_AUTH_STRING"],
    }
    mlflow = {
        **{name: value for name, value in client.items() if not name.startswith("MLFLOW_TRACKING")},
        "MLFLOW_BACKEND_STORE_URI": place.database("mlflow", driver="+psycopg2"),
        "MLFLOW_AUTH_CONFIG_PATH": str(place.folder / "mlflow" / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": place.secrets["MLFLOW_ADMIN_PASSWORD"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": place.secrets["MLFLOW_FLASK_SERVER_SECRET_KEY"],
    }
    serve = (
        *python, "mlflow", "server", *loopback, str(ports.mlflow), "--workers", "1", "--app-name", "basic-auth",
        "--artifacts-destination", (place.folder / "mlflow" / "artifacts").as_uri(),
    )  # fmt: skip
    work = (*python, "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", POOL,
            "--with-healthcheck", "--install-policy", "never")  # fmt: skip
    health = {"PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1", "PREFECT_WORKER_WEBSERVER_PORT": str(ports.worker)}
    found = [
        Service("prefect", (*python, "prefect", "server", "start", *loopback, str(ports.prefect)), prefect,
                lambda: answers(f"{place.prefect_url}/api/health")),
        Service("mlflow", serve, mlflow, lambda: answers(f"{place.mlflow_url}/health")),
        Service("worker", work, {**client, **health}, lambda: answers(f"http://127.0.0.1:{ports.worker}/health")),
    ]  # fmt: skip
    pipeline = _with_champion(place)
    if pipeline is not None:
        answer = (*python, "flows.cli", "endpoint", pipeline, *loopback, str(ports.endpoint))
        works = lambda: answers(f"http://127.0.0.1:{ports.endpoint}/health")  # noqa: E731
        found.append(Service("endpoint", answer, client, works))
    return tuple(found)


def ledger_of(place: Place) -> Ledger:
    """The stack's ledger, for this process."""
    os.environ["PGPASSFILE"] = str(place.folder / "pgpass")
    return Ledger(place.home, place.database("ledger"))


def _with_champion(place: Place) -> str | None:
    """The first pipeline of the file that has a champion; None also when nobody can tell."""
    if alive(place, "postgres") is None or not place.cluster.answers():
        return None
    named = {champion.name for champion in ledger_of(place).champions()}
    pipelines = load_file(place.config).pipelines
    return next((name for name, spec in pipelines.items() if spec.registry.name in named), None)


def start_postgres(place: Place) -> None:
    """The database alone, with an empty database for each who needs one."""
    folder = private_folder(place.folder / "postgres")
    if alive(place, "postgres") is None:
        place.cluster.create()
        process = place.cluster.start(folder / "server.log")
        _keep(place, "postgres", process, folder / "server.log")
    there = place.cluster.run("psql", "-d", "postgres", "-Atc", "SELECT datname FROM pg_database").decode().split()
    for name in DATABASES:
        if name not in there:
            place.cluster.run("createdb", "-T", "template0", name)


def _stop_postgres(server: Server) -> None:
    os.kill(server.pid, signal.SIGINT)  # the postmaster alone: it ends its children in order
    deadline = time.monotonic() + 60
    while start_time(server.pid) == server.started and time.monotonic() < deadline:
        _reap()
        time.sleep(0.1)


def _start(place: Place, service: Service) -> None:
    folder = private_folder(place.folder / service.name)
    if alive(place, service.name) is None:
        if service.name == "mlflow":
            ini = folder / "auth.ini"
            ini.write_text(AUTH_INI.format(database=place.database("mlflow_auth", driver="+psycopg2")))
        log = folder / "server.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                service.command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=dict(service.environ),
                cwd=place.config.parent, start_new_session=True,
            )  # fmt: skip
        _keep(place, service.name, process, log)
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not service.works():
        if alive(place, service.name) is None or time.monotonic() >= deadline:
            raise StackError(f"{service.name} does not start; the end of {folder / 'server.log'}:\n{_end(folder)}")
        time.sleep(0.5)


_started: list[subprocess.Popen[bytes]] = []


def _keep(place: Place, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
    _started.append(process)
    url = f"http://127.0.0.1:{place.told()[name]}"
    server = Server(name, url, process.pid, start_time(process.pid), str(log))
    write_json(private_folder(place.folder / name) / "server.json", asdict(server))


def alive(place: Place, name: str) -> Server | None:
    """The service's process, if it is there."""
    _reap()
    return read_state(place.folder / name)


def _reap() -> None:
    """Collect children that ended: a zombie would look alive."""
    for process in _started:
        process.poll()


def _end(folder: Path) -> str:
    return (folder / "server.log").read_text(errors="replace")[-2000:]


def _make_user(place: Place) -> None:
    """The user that runs write to MLflow as; the administrator's password is for people."""
    login = b64encode(f"admin:{place.secrets['MLFLOW_ADMIN_PASSWORD']}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"{place.mlflow_url}/api/2.0/mlflow/users/create",
        json.dumps({"username": "tunegate", "password": place.secrets["MLFLOW_PASSWORD"]}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {login}"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with closing(direct.open(request, timeout=60)):
            pass
    except urllib.error.HTTPError as error:
        told = error.read().decode(errors="replace")
        if "RESOURCE_ALREADY_EXISTS" not in told:
            raise StackError(f"MLflow makes no user: {error.code} {told[:300]}") from None
