"""The services of the stack: command, environment and health check of each; start, find and stop them.

Any of them may be killed: `up` starts what is gone. Secrets are passed in the environment or in a file that only this
user can read, never on a command line. State files are those of `flows/workspace/servers.py`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from flows.ledger.ledger import Ledger
from flows.workspace.disk import private_folder, write_private
from flows.workspace.lock import hold
from flows.workspace.servers import Server, answers, mlflow_names, read_state, start_time, stop
from infra.stack.place import DATABASES, POOL, PORTS, StackPlace
from schemas.errors import ServiceError
from schemas.load import load_file
from schemas.secrets import without_secrets
from tasks.storage.files import write_json

STARTS_WITHIN_S = 300.0
LOGINS = Path(__file__).parents[1] / "mlflow_auth.ini"
IN_CONTAINERS = "postgresql+psycopg2://tunegate@postgres/mlflow_auth"
"""The database of `LOGINS` in compose.yaml; this stack has another."""

_started: list[subprocess.Popen[bytes]] = []


class StackError(Exception):
    """A service does not start; the message names its log."""


@dataclass(frozen=True)
class Service:
    """One process."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    works: Callable[[], bool]


def services(place: StackPlace) -> tuple[Service, ...]:
    """Return all services but Postgres; the endpoint only once there is a champion."""
    client, ports = place.process(), place.ports
    python = (sys.executable, "-m")
    loopback = ("--host", "127.0.0.1", "--port")
    server = without_secrets(client)  # the servers need only the secrets below
    prefect = {
        **server,
        "PREFECT_API_DATABASE_CONNECTION_URL": place.database("prefect", driver="+asyncpg"),
        "PREFECT_SERVER_API_AUTH_STRING": client["PREFECT_API_AUTH_STRING"],
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": place.prefect_url,
    }
    ini = private_folder(place.folder / "mlflow") / "auth.ini"
    logins = place.database("mlflow_auth", driver="+psycopg2")
    write_private(ini, LOGINS.read_text(encoding="utf-8").replace(IN_CONTAINERS, logins))
    mlflow = {
        **{name: value for name, value in server.items() if not name.startswith("MLFLOW_TRACKING")},
        "MLFLOW_BACKEND_STORE_URI": place.database("mlflow", driver="+psycopg2"),
        "MLFLOW_AUTH_CONFIG_PATH": str(ini),
        "MLFLOW_AUTH_ADMIN_PASSWORD": place.secrets["MLFLOW_ADMIN_PASSWORD"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": place.secrets["MLFLOW_FLASK_SERVER_SECRET_KEY"],
    }
    serve = (
        *python, "mlflow", "server", *loopback, str(ports["mlflow"]), "--workers", "1", "--app-name", "basic-auth",
        "--artifacts-destination", (place.folder / "mlflow" / "artifacts").as_uri(), *mlflow_names(ports["mlflow"]),
    )  # fmt: skip
    work = (*python, "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", POOL,
            "--with-healthcheck", "--install-policy", "never")  # fmt: skip
    health = {"PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1", "PREFECT_WORKER_WEBSERVER_PORT": str(ports["worker"])}
    found = [
        Service("prefect", (*python, "prefect", "server", "start", *loopback, str(ports["prefect"])), prefect,
                lambda: answers(f"{place.prefect_url}/api/health")),
        Service("mlflow", serve, mlflow, lambda: answers(f"{place.mlflow_url}/health")),
        Service("worker", work, {**client, **health}, lambda: answers(f"http://127.0.0.1:{ports['worker']}/health")),
    ]  # fmt: skip
    pipeline = _with_champion(place)
    if pipeline is not None:
        answer = (*python, "flows.cli", "model", "endpoint", pipeline, *loopback, str(ports["endpoint"]))
        health_url = f"http://127.0.0.1:{ports['endpoint']}/health"
        found.append(Service("endpoint", answer, client, lambda: answers(health_url)))
    return tuple(found)


def ledger_of(place: StackPlace) -> Ledger:
    """Return the stack's ledger, for this process."""
    os.environ["PGPASSFILE"] = str(place.folder / "pgpass")
    return Ledger(place.home, place.database("ledger"))


def _with_champion(place: StackPlace) -> str | None:
    """Return the first pipeline of the file with a champion; None also while the ledger cannot be read."""
    if not place.cluster.answers():
        return None
    try:
        names = {champion.name for champion in ledger_of(place).champions()}
    except ServiceError:  # the database does not exist yet
        return None
    pipelines = load_file(place.config).trained
    return next((name for name, spec in pipelines.items() if spec.registry.name in names), None)


def up(place: StackPlace, *, report: Callable[[str], None]) -> None:
    """Start what is not running, in order. Idempotent.

    Raises:
        StackError: a service does not answer within five minutes.
    """
    place.prepare()
    with hold(place.folder / "starting.lock"):  # two commands at once start each service once
        start_postgres(place)
        report(f"postgres  127.0.0.1:{place.ports['postgres']}")
        wanted = services(place)
        for service in wanted:
            _start(place, service)
            report(f"{service.name:<9} 127.0.0.1:{place.ports[service.name]}")
            if service.name == "mlflow":
                _make_user(place)
    if not any(service.name == "endpoint" for service in wanted):
        report("endpoint  not started: no pipeline has a champion; run `up` again after the first promotion")


def down(place: StackPlace, *, report: Callable[[str], None]) -> None:
    """Stop all services in reverse order."""
    for name in reversed(PORTS):
        server = alive(place, name)
        if server is None:
            continue
        if name == "postgres":
            _stop_postgres(server)
        else:
            stop(server)
        (place.folder / name / "server.json").unlink(missing_ok=True)
        report(f"{name} stopped")


def status(place: StackPlace) -> dict[str, str]:
    """Return service -> `works`, `silent` (alive, but does not answer) or `down`."""
    if not (place.folder / "ports.json").exists():
        return {name: "down" for name in PORTS if name != "endpoint"}
    checks = {"postgres": place.cluster.answers, **{one.name: one.works for one in services(place)}}
    return {
        name: ("works" if works() else "silent") if alive(place, name) else "down" for name, works in checks.items()
    }


def start_postgres(place: StackPlace) -> None:
    """Start only the database server, with an empty database for each service that needs one."""
    folder = private_folder(place.folder / "postgres")
    if alive(place, "postgres") is None:
        place.cluster.create()
        process = place.cluster.start(folder / "server.log")
        _keep(place, "postgres", process, folder / "server.log")
    there = place.cluster.run("psql", "-d", "postgres", "-Atc", "SELECT datname FROM pg_database").decode().split()
    for name in DATABASES:
        if name not in there:
            place.cluster.run("createdb", "-T", "template0", name)


def alive(place: StackPlace, name: str) -> Server | None:
    """Return the service's process, if it is alive."""
    _reap()
    return read_state(place.folder / name)


def _stop_postgres(server: Server) -> None:
    os.kill(server.pid, signal.SIGINT)  # only the postmaster: it stops its children in order
    deadline = time.monotonic() + 60
    while start_time(server.pid) == server.started and time.monotonic() < deadline:
        _reap()
        time.sleep(0.1)


def _start(place: StackPlace, service: Service) -> None:
    folder = private_folder(place.folder / service.name)
    log = folder / "server.log"
    if alive(place, service.name) is None:
        with log.open("ab") as stream:
            process = subprocess.Popen(
                service.command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=dict(service.environ),
                cwd=place.config.parent, start_new_session=True,
            )  # fmt: skip
        _keep(place, service.name, process, log)
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not service.works():
        if alive(place, service.name) is None or time.monotonic() >= deadline:
            end = log.read_text(errors="replace")[-2000:]
            raise StackError(f"{service.name} does not start; the end of {log}:\n{end}")
        time.sleep(0.5)


def _keep(place: StackPlace, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
    _started.append(process)
    url = f"http://127.0.0.1:{place.ports[name]}"
    server = Server(name, url, process.pid, start_time(process.pid), str(log))
    write_json(private_folder(place.folder / name) / "server.json", asdict(server))


def _reap() -> None:
    """Reap children that have ended: a zombie would look alive."""
    for process in _started:
        process.poll()


def _make_user(place: StackPlace) -> None:
    """Create the user as which runs write to MLflow, unless it exists; the administrator is for people."""
    answer = httpx.post(
        f"{place.mlflow_url}/api/2.0/mlflow/users/create",
        json={"username": "tunegate", "password": place.secrets["MLFLOW_PASSWORD"]},
        auth=("admin", place.secrets["MLFLOW_ADMIN_PASSWORD"]),
        timeout=60,
        trust_env=False,  # no proxy: it is this machine
    )
    if answer.is_error and "RESOURCE_ALREADY_EXISTS" not in answer.text:
        raise StackError(f"MLflow did not create the user: {answer.status_code} {answer.text[:300]}")
