"""What the services of the stack are: the command of each, its environment, and how to tell that it works.

Every secret goes by the environment or by a file that only this user reads, never by a command line. How they are
started and stopped is in `infra/stack/processes.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flows.engine.disk import private_folder, write_private
from flows.engine.ledger import Ledger
from flows.servers import answers
from infra.stack.place import POOL, Place
from schemas.errors import ServiceError
from schemas.load import load_file
from schemas.secrets import without_secrets

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


def services(place: Place) -> tuple[Service, ...]:
    """All but Postgres; the endpoint only once there is a champion to answer."""
    client, ports = place.process(), place.ports
    python = (sys.executable, "-m")
    loopback = ("--host", "127.0.0.1", "--port")
    server = without_secrets(client)  # of them the servers need only what follows
    prefect = {
        **server,
        "PREFECT_API_DATABASE_CONNECTION_URL": place.database("prefect", driver="+asyncpg"),
        "PREFECT_SERVER_API_AUTH_STRING": client["PREFECT_API_AUTH_STRING"],
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": place.prefect_url,
    }
    ini = private_folder(place.folder / "mlflow") / "auth.ini"
    write_private(ini, AUTH_INI.format(database=place.database("mlflow_auth", driver="+psycopg2")))
    mlflow = {
        **{name: value for name, value in server.items() if not name.startswith("MLFLOW_TRACKING")},
        "MLFLOW_BACKEND_STORE_URI": place.database("mlflow", driver="+psycopg2"),
        "MLFLOW_AUTH_CONFIG_PATH": str(ini),
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
    pipeline = with_champion(place)
    if pipeline is not None:
        answer = (*python, "flows.cli", "endpoint", pipeline, *loopback, str(ports.endpoint))
        health_url = f"http://127.0.0.1:{ports.endpoint}/health"
        found.append(Service("endpoint", answer, client, lambda: answers(health_url)))
    return tuple(found)


def ledger_of(place: Place) -> Ledger:
    """The stack's ledger, for this process."""
    os.environ["PGPASSFILE"] = str(place.folder / "pgpass")
    return Ledger(place.home, place.database("ledger"))


def with_champion(place: Place) -> str | None:
    """The first pipeline of the file that has a champion; None also when nobody can tell."""
    if not place.cluster.answers():
        return None
    try:
        named = {champion.name for champion in ledger_of(place).champions()}
    except ServiceError:  # the database is not made yet
        return None
    pipelines = load_file(place.config).pipelines
    return next((name for name, spec in pipelines.items() if spec.registry.name in named), None)
