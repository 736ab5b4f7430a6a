"""The local servers: Prefect for flows, one for all of a user's projects, and MLflow's UI over a project's store.

They listen on loopback, send no telemetry, get none of the operator's secrets and are found again through a small state
file next to their log. Both ask for a login (`flows/workspace/login.py`).

A run uses the user's Prefect server unless PREFECT_API_URL names another one or the project has its own. Deployments
need a server of the project: they have the names of pipelines, which two projects may share. So `tunegate ops serve`
and `deploy` start one below the home folder, and it stays. The user's server is below their state folder, one for each
version of Prefect and each host, and ends after an idle hour (`flows/workspace/idle.py`).
"""

import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from flows.workspace.disk import private_folder
from flows.workspace.guard import PRIVATE_UMASK
from flows.workspace.lock import hold
from flows.workspace.login import make_login, pages_of, read_login, write_login_page
from flows.workspace.settings import Settings
from flows.workspace.temporary import TMPDIR
from schemas.errors import ServiceError
from schemas.evaluation import is_loopback
from schemas.secrets import without_secrets
from tasks.http_client import requested
from tasks.storage.files import write_json

PREFECT_ENVIRONMENT: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # in ephemeral mode the last task runs of a process are lost
    "PREFECT_SERVER_UI_API_URL": "/api",  # relative, so that it works on any port and behind any proxy
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",  # never pickle
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # In memory, Prefect's default, a restarted server forgets who holds a slot: the slot stays taken, and at the next
    # renewal Prefect kills the run that holds it.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}
MLFLOW_ENVIRONMENT: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes, for judges that are not used here
}

START_TIMEOUT_S = 180
STOP_GRACE_S = 15
YOURS_TIMEOUT_S = 5
LOOPBACK = ("127.0.0.1", "localhost")
MLFLOW_LOGINS = Path(__file__).parent / "mlflow_auth.ini"
_PROTECTED = {"prefect": "/api/admin/version", "mlflow": "/api/2.0/mlflow/experiments/search?max_results=1"}
"""A path that only a client with the login may read."""
FIRST_OWN_PORT, LAST_OWN_PORT = 20_000, 32_768

_children: list[subprocess.Popen[bytes]] = []
"""Servers started by this process. They outlive it on purpose, so it never waits for them."""


@dataclass(frozen=True)
class Server:
    """One running server: its kind, address and process."""

    kind: str
    url: str
    pid: int
    started: str
    """Start time of the process as the kernel counts it: distinguishes a recycled pid."""
    log: str


Launch = tuple[list[str], dict[str, str]]
"""How a server is started: its command and its environment."""


def ensure_prefect(
    home: Path, *, environ: Mapping[str, str] = os.environ, idle_s: float | None = None,
    starting: Callable[[], None] = lambda: None,
) -> Server | None:  # fmt: skip
    """Start the Prefect server of this home folder unless it runs already; None when PREFECT_API_URL names another one.

    Args:
        idle_s: Seconds without use after which it ends; None for never.
        starting: Called before a server is started, which takes 5 to 20 seconds.

    Raises:
        ServiceError: TG0701, it does not answer within three minutes (the message has the log's path), or the server
            that PREFECT_API_URL names does not answer.
    """
    yours = environ.get("PREFECT_API_URL")
    if yours:
        _expect(yours, key=environ.get("PREFECT_API_KEY"))
        return None
    folder = private_folder(home / "prefect")

    def launch(port: int) -> Launch:
        starting()
        # `prefect server start` does the same, but never ends.
        command = [sys.executable, "-m", "flows.workspace.idle", "prefect.server.api.server:create_app"]
        command += ["--port", str(port), *(() if idle_s is None else ("--idle-s", str(idle_s)))]
        environment = {
            **without_secrets(environ),
            **PREFECT_ENVIRONMENT,
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_HOME": str(folder),
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
            "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
            "PREFECT_SERVER_API_AUTH_STRING": make_login(folder),
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(pages_of(folder)),
        }
        return command, environment

    server = _ensure("prefect", folder, launch, health="/api/health")
    write_login_page(folder)
    return server


def ensure_users_prefect(
    settings: Settings, *, environ: Mapping[str, str] = os.environ, starting: Callable[[], None] = lambda: None
) -> Server | None:
    """Return the Prefect server for a run: that of PREFECT_API_URL (None), this home's if it runs, else the user's.

    Raises:
        ServiceError: TG0701, as `ensure_prefect`, or the folder of the user's server cannot be written.
    """
    home, state = settings.home, settings.state
    if environ.get("PREFECT_API_URL") or state is None or read_state(home / "prefect") is not None:
        return ensure_prefect(home, environ=environ, starting=starting)
    # The same server whoever starts it: settings of one project's shell are not those of all projects.
    common = {name: value for name, value in environ.items() if not name.startswith("PREFECT_")}
    folder = users_home(state)
    try:
        return ensure_prefect(folder, environ=common, idle_s=settings.server_idle_s, starting=starting)
    except OSError as error:
        raise ServiceError(
            f"the folder of your Prefect server cannot be written: {error.strerror or type(error).__name__}",
            code="TG0701", where=str(folder), hint="set XDG_STATE_HOME to a folder that you can write",
        ) from error  # fmt: skip


def users_home(state: Path) -> Path:
    """Return the folder of the user's Prefect server.

    Another version of Prefect has another server and database, which it might not be able to read. So has another host:
    where home folders are on a network, a process id of one host says nothing on another.
    """
    return state / "servers" / f"prefect-{metadata.version('prefect')}@{socket.gethostname()}"


def users_homes(state: Path | None) -> list[Path]:
    """Return the folders of the user's Prefect servers on this host, of all versions of Prefect."""
    return [] if state is None else sorted((state / "servers").glob(f"prefect-*@{socket.gethostname()}"))


def ensure_mlflow(home: Path, *, environ: Mapping[str, str] = os.environ) -> Server:
    """Start MLflow's server over the embedded store unless it runs already.

    Raises:
        ServiceError: TG0701, it does not answer within three minutes; the message has the log's path.
    """
    folder = private_folder(home / "mlflow")

    def launch(port: int) -> Launch:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
            # Files, not `mlflow-artifacts:` addresses, which work only while this server runs.
            "--no-serve-artifacts", "--default-artifact-root", (folder / "artifacts").absolute().as_uri(),
            "--app-name", "basic-auth", *mlflow_names(port),
        ]  # fmt: skip
        user, _, password = make_login(folder).partition(":")
        (folder / "auth.db").unlink(missing_ok=True)  # MLflow keeps the first password that it is started with
        environment = {
            **without_secrets(environ),
            **MLFLOW_ENVIRONMENT,
            "MLFLOW_AUTH_CONFIG_PATH": str(MLFLOW_LOGINS),
            "MLFLOW_AUTH_ADMIN_USERNAME": user,
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
            "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",  # whatever the operator's shell says
            "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        }
        return command, environment

    return _ensure("mlflow", folder, launch, health="/health")


def mlflow_names(port: int) -> tuple[str, ...]:
    """Return the options that make MLflow's server answer to its own name on loopback and to no other."""
    # Its own default origins are every port of this machine: `tasks/release/mlflow_door.py` refuses those.
    hosts = [f"{host}:{port}" for host in LOOPBACK]
    origins = [f"http://{host}" for host in hosts]
    return ("--allowed-hosts", ",".join(hosts), "--cors-allowed-origins", ",".join(origins))


def running(*homes: Path) -> tuple[Server, ...]:
    """Return the servers of these home folders that are alive."""
    found = (read_state(home / kind) for home in homes for kind in ("prefect", "mlflow"))
    return tuple(server for server in found if server is not None)


def stop_all(home: Path) -> tuple[Server, ...]:
    """Stop the servers of this home folder and return those that ran."""
    stopped = running(home)
    for server in stopped:
        stop(server)
        (home / server.kind / "server.json").unlink(missing_ok=True)
    return stopped


def client_environment(server: Server | None, *, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that a process must set before it imports Prefect, to talk to the server.

    `environ` is its environment so far: this machine is added to the hosts that it reaches without a proxy.
    """
    named = {} if server is None else {"PREFECT_API_URL": f"{server.url}/api"}
    login = None if server is None else read_login(Path(server.log).parent)
    if login is not None:
        named["PREFECT_API_AUTH_STRING"] = login
    # The server keeps Prefect's logs, the console shows ours. A request is repeated after 2, 4, 8 and 16 s, so that a
    # server which is back after 30 s is not noticed; a dead one is then given up (`flows/schedule/without_prefect.py`).
    retries = environ.get("PREFECT_CLIENT_MAX_RETRIES", "4")
    quiet = {
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
        "PREFECT_CLIENT_MAX_RETRIES": retries,
    }  # fmt: skip
    direct = _without_proxy(environ)
    return {**PREFECT_ENVIRONMENT, **MLFLOW_ENVIRONMENT, **quiet, **named, "NO_PROXY": direct, "no_proxy": direct}


def _ensure(kind: str, folder: Path, launch: Callable[[int], Launch], *, health: str) -> Server:
    """Return the server that runs already, if it answers and can be trusted; else start one."""
    with hold(folder / "starting.lock"):  # two runs that start together share one server
        alive = read_state(folder)
        if alive is not None:
            if _wait_for(alive, health) and _has_our_login(alive, folder):
                return alive
            stop(alive)
        return _start(kind, folder, launch, health)


def _has_our_login(server: Server, folder: Path) -> bool:
    """False for a server that answers anyone, or that has another login."""
    login, protected = read_login(folder), server.url + _PROTECTED[server.kind]
    if login is None or answer_code(protected) == 200:
        return False
    return answer_code(protected, login=login) not in (401, 403)  # a busy one that answers late is not replaced


def _start(kind: str, folder: Path, launch: Callable[[int], Launch], health: str) -> Server:
    port = free_port()
    command, environment = launch(port)
    log, state, temporary = folder / "server.log", folder / "server.json", folder / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # what the server before left there
    own = {TMPDIR: str(private_folder(temporary))}  # it outlives the command that starts it, and its folder
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env={**environment, **own},
            cwd=folder, start_new_session=True, umask=PRIVATE_UMASK,
        )  # fmt: skip
    _children.append(process)
    server = Server(kind, f"http://127.0.0.1:{port}", process.pid, start_time(process.pid), str(log))
    try:
        write_json(state, asdict(server))  # at once: if this process is killed, the next one finds the server
        if _wait_for(server, health):
            return server
        ended = process.poll()
        what = f"did not answer within {START_TIMEOUT_S} s" if ended is None else f"ended with exit code {ended}"
        raise ServiceError(f"the local {kind} server {what}", code="TG0701", where=str(log), hint=f"read {log}")
    except BaseException:
        stop(server)
        state.unlink(missing_ok=True)
        raise


def _wait_for(server: Server, health: str) -> bool:
    """Return whether it answers before its process ends or START_TIMEOUT_S is over."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        if answers(server.url + health):
            return True
        _reap(server.pid)
        if start_time(server.pid) != server.started or time.monotonic() >= deadline:
            return False
        time.sleep(0.2)


def _expect(url: str, *, key: str | None) -> None:
    """Raise ServiceError (TG0701) unless the user's own Prefect server answers."""
    deadline = time.monotonic() + YOURS_TIMEOUT_S
    while not answers(f"{url.rstrip('/')}/health", key=key):
        if time.monotonic() >= deadline:
            raise ServiceError(
                "the Prefect server that PREFECT_API_URL names does not answer",
                code="TG0701",
                where=url,
                hint="check the address (it ends in /api) and the server, or unset PREFECT_API_URL to use a local one",
            )
        time.sleep(0.5)


def answer_code(url: str, *, login: str | None = None, key: str | None = None) -> int | None:
    """Return the HTTP status that the address answers with; None without an answer.

    Args:
        login: `user:password`, for a server that wants one.
        key: An API key, as of Prefect Cloud.
    """
    import httpx

    direct = is_loopback(urlsplit(url).hostname or "")  # a proxy would look on its own machine
    value = f"Bearer {key}" if key else f"Basic {b64encode((login or '').encode()).decode()}"
    headers = {"Authorization": value} if key or login else {}
    try:
        with requested("GET", url, timeout_s=2, direct=direct, headers=headers, follow_redirects=True) as response:
            return response.status_code
    except (httpx.HTTPError, httpx.InvalidURL):
        return None


def answers(url: str, *, key: str | None = None) -> bool:
    """Return whether the address answers with 200, or asks for the login that the client will send."""
    return answer_code(url, key=key) in (200, 401, 403)


def _without_proxy(environ: Mapping[str, str]) -> str:
    named = f"{environ.get('NO_PROXY', '')},{environ.get('no_proxy', '')}".split(",")
    hosts = dict.fromkeys(host.strip() for host in (*named, *LOOPBACK) if host.strip())
    return "*" if "*" in hosts else ",".join(hosts)  # `*` means every host only when it is alone


def read_state(folder: Path) -> Server | None:
    """Return the server with its state in the folder, if its process is alive and writes its log there."""
    try:
        server = Server(**json.loads((folder / "server.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    _reap(server.pid)
    alive = start_time(server.pid) == server.started != ""
    return server if alive and _log_folder(server) == folder.resolve() else None


def _log_folder(server: Server) -> Path:
    """Return the folder of the log as the process has it open now; the recorded one where the kernel does not say."""
    # A copied home has the state of the original's servers, which it must not stop; a moved home keeps its own.
    try:
        return Path(f"/proc/{server.pid}/fd/2").readlink().parent
    except OSError:
        return Path(server.log).resolve().parent


def start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat, or the pid itself where there is no /proc; empty when the process has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return "" if fields[0] in "ZX" else fields[19]  # a server that ended before its starter, which did not wait
    except (FileNotFoundError, ProcessLookupError):  # the second one when it ends while it is read
        if Path("/proc/self").exists():
            return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return str(pid)


def stop(server: Server) -> None:
    """End it with all its processes: SIGTERM first, SIGKILL after a grace period."""
    for number, grace in ((signal.SIGTERM, STOP_GRACE_S), (signal.SIGKILL, 5)):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            _reap(server.pid)
            return
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline:
            if start_time(server.pid) != server.started:
                _reap(server.pid, wait_s=5)
                return
            time.sleep(0.1)


def _reap(pid: int, *, wait_s: float = 0) -> None:
    """Reap the process if it is a child of this one: a zombie would look alive."""
    for child in _children:
        if child.pid == pid:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(wait_s)


def free_port(*, without: Collection[int] = ()) -> int:
    """Return a loopback port on which nothing listens."""
    # The server binds it seconds later. So it is outside the range that the kernel hands out meanwhile, and random, so
    # that two processes which choose at the same moment hardly choose the same.
    ports = _unassigned_ports()
    for port in random.SystemRandom().sample(ports, len(ports)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in without:
                return port
    raise ServiceError("no port of loopback is free", code="TG0701", where="127.0.0.1", hint="stop what listens there")


def _unassigned_ports() -> range:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):  # not Linux: other systems' ranges begin later
        first = LAST_OWN_PORT
    return range(FIRST_OWN_PORT, first if first > FIRST_OWN_PORT + 1000 else LAST_OWN_PORT)
