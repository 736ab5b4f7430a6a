"""The processes of the stack: started in order, found again, stopped; each may be killed, `up` starts what is gone.

They leave the state files of `flows/servers.py`. `run_one` becomes one of them in the foreground: that is how a
supervisor of the machine (`infra/systemd`) starts and watches them. What they are is in `infra/stack/services.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from flows.engine.disk import private_folder
from flows.engine.lock import hold
from flows.servers import Server, read_state, start_time, stop
from infra.stack.place import DATABASES, Place
from infra.stack.postgres import PostgresError
from infra.stack.services import Service, StackError, services
from tasks.files import write_json

STARTS_WITHIN_S = 300.0
ORDER = ("postgres", "prefect", "mlflow", "worker", "endpoint")

_started: list[subprocess.Popen[bytes]] = []


def up(place: Place, *, tell: Callable[[str], None]) -> None:
    """Start what is not alive, in order; doing it again changes nothing.

    Raises:
        StackError: a service does not answer within five minutes.
    """
    place.prepare()
    with hold(place.folder / "starting.lock"):  # two at once start each service once
        start_postgres(place)
        tell(f"postgres  127.0.0.1:{place.ports.postgres}")
        for service in services(place):
            _start(place, service)
            tell(f"{service.name:<9} 127.0.0.1:{place.told()[service.name]}")
            if service.name == "mlflow":
                make_user(place)
    if not any(service.name == "endpoint" for service in services(place)):
        tell("endpoint  not yet: no pipeline has a champion; `up` again after the first promotion")


def down(place: Place, *, tell: Callable[[str], None]) -> None:
    """Stop them, the last first."""
    for name in reversed(ORDER):
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
    if not (place.folder / "ports.json").exists():
        return dict.fromkeys(ORDER[:-1], "down")
    states = {}
    checks = {"postgres": place.cluster.answers, **{one.name: one.works for one in services(place)}}
    for name, works in checks.items():
        states[name] = ("works" if works() else "silent") if alive(place, name) else "down"
    return states


def run_one(place: Place, name: str) -> None:
    """Become this service; what it needs is waited for first. Returns only by an error.

    Raises:
        StackError: it needs a database that does not answer within five minutes, or a champion that nobody is.
    """
    place.prepare()
    if name == "postgres":
        with hold(place.folder / "starting.lock"):
            place.cluster.create()
        command, environ = tuple(place.cluster.command()), dict(place.environ)
    else:
        _wait(place.cluster.answers, "postgres")
        _make_databases(place)
        found = next((service for service in services(place) if service.name == name), None)
        if found is None:
            raise StackError("no pipeline has a champion yet, so that nobody would answer")
        command, environ = found.command, dict(found.environ)
    folder = private_folder(place.folder / name)
    server = Server(name, f"http://127.0.0.1:{place.told()[name]}", os.getpid(), start_time(os.getpid()), "the journal")
    write_json(folder / "server.json", asdict(server))  # the process stays the same one
    os.chdir(place.cluster.folder if name == "postgres" else place.config.parent)
    if name == "postgres":
        place.cluster.become_user()
    os.execve(command[0], command, environ)  # noqa: S606 - no shell is wanted


def wait_for(place: Place, name: str) -> None:
    """Wait until the service works; Postgres only with its databases.

    Raises:
        StackError: not within five minutes.
    """
    if name == "postgres":
        _wait(place.cluster.answers, name)
        _make_databases(place)
        return
    _wait({one.name: one.works for one in services(place)}[name], name)


def _wait(works: Callable[[], bool], name: str) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not works():
        if time.monotonic() >= deadline:
            raise StackError(f"{name} does not answer")
        time.sleep(0.5)


def start_postgres(place: Place) -> None:
    """The database alone, with an empty database for each who needs one."""
    folder = private_folder(place.folder / "postgres")
    if alive(place, "postgres") is None:
        place.cluster.create()
        process = place.cluster.start(folder / "server.log")
        _keep(place, "postgres", process, folder / "server.log")
    _make_databases(place)


def _make_databases(place: Place) -> None:
    for name in DATABASES:
        if name in _databases(place):
            continue
        try:
            place.cluster.run("createdb", "-T", "template0", name)
        except PostgresError:  # another service, started at the same moment, may have made it
            if name not in _databases(place):
                raise


def _databases(place: Place) -> list[str]:
    return place.cluster.run("psql", "-d", "postgres", "-Atc", "SELECT datname FROM pg_database").decode().split()


def _stop_postgres(server: Server) -> None:
    os.kill(server.pid, signal.SIGINT)  # the postmaster alone: it ends its children in order
    deadline = time.monotonic() + 60
    while start_time(server.pid) == server.started and time.monotonic() < deadline:
        _reap()
        time.sleep(0.1)


def _start(place: Place, service: Service) -> None:
    folder = private_folder(place.folder / service.name)
    if alive(place, service.name) is None:
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


def make_user(place: Place) -> None:
    """Make the user that runs write to MLflow as, unless it is there; the administrator is for people."""
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
