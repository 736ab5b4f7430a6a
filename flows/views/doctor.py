"""The checks of `tunegate ops doctor`, one small function each.

In this order: the machine (Python, packages, torch and its devices, disk, clock), the state folder (locks, ledger,
warehouses, MLflow's store, the champions' files), the servers, and who else can reach both. Nothing is started or
repaired, but runs without a living process are marked, as by `tunegate runs`. Only health requests are sent, and one
request without credentials, which shows whether a server answers anyone: Prefect and MLflow ask for a login only if
configured to. `flows/schedule/slots.py` adds a check of the limits that people set in Prefect.
"""

import os
import shutil
import socket
import sqlite3
import stat
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TypeAlias

from flows.context.ingest import ingested_summary, source_fault
from flows.ledger.history import is_before
from flows.ledger.open import open_ledger
from flows.records.published import warehouse_folder
from flows.views.champion_files import check_champion
from flows.workspace.clock import VARIABLE, now
from flows.workspace.disk import named_disk_errors
from flows.workspace.lock import is_locked
from flows.workspace.ray_cluster import check_cluster, nodes_of
from flows.workspace.servers import answer_code, running, users_homes
from flows.workspace.settings import Settings
from schemas.artifacts import ChampionRef
from schemas.counted import counted
from schemas.errors import ConfigError, LockedError, StorageError, TunegateError
from schemas.evaluation import is_loopback
from schemas.load import load_file
from tasks.extras import install_line, missing_packages
from tasks.storage.sealed_folder import verify
from tasks.storage.warehouse import connect

MIN_FREE_GB = 5.0
OUR_PACKAGES = ("flows", "tasks", "schemas")
NEEDED = ("duckdb", "prefect", "mlflow")
TRAINING = ("torch", "transformers")
HEALTH = {"prefect": "/api/health", "mlflow": "/health"}
LOGIN = {
    "prefect": ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"),
    "mlflow": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN"),
}
"""Variables with a login, of which one is enough."""
_LISTENING = "0A"
_PROTECTED = {"prefect": "/admin/version", "mlflow": "/api/2.0/mlflow/experiments/search?max_results=1"}
"""A path that a server with logins answers only with one."""
_FIX = {
    "prefect": "set PREFECT_SERVER_API_AUTH_STRING there and PREFECT_API_AUTH_STRING here, or listen on 127.0.0.1",
    "mlflow": "start it with --app-name basic-auth and --allowed-hosts, or listen on 127.0.0.1",
}


@dataclass(frozen=True)
class Symptom:
    """One line of the report."""

    what: str
    state: str
    """`ok`, `warn` or `bad`."""
    message: str
    fix: str = ""


@dataclass(frozen=True)
class Patient:
    """What is checked."""

    settings: Settings
    config: Path
    environ: Mapping[str, str]


def _rated(what: str, good: bool, message: str, fix: str, *, otherwise: str = "warn") -> Symptom:
    """A finding that needs the fix only if it is not good."""
    return Symptom(what, "ok" if good else otherwise, message, "" if good else fix)


Check: TypeAlias = Callable[[Patient], Iterator[Symptom]]


def bare_url(url: str) -> str:
    """Return the address without user and password.

    >>> bare_url("http://ann:secret@db.example:5000/api")
    'http://db.example:5000/api'
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))


def python(_patient: Patient) -> Iterator[Symptom]:
    """Check its version, and count the cores."""
    fit = (3, 11) <= sys.version_info[:2] <= (3, 14)
    message = f"{sys.version.split()[0]}, {counted(os.cpu_count() or 1, 'core')}"
    yield _rated("python", fit, message, "use Python 3.11 to 3.14", otherwise="bad")


def packages(_patient: Patient) -> Iterator[Symptom]:
    """Check that everything a run imports is installed."""
    lacks_training = missing_packages("train")
    for name in NEEDED if lacks_training else (*TRAINING, *NEEDED):
        try:
            yield Symptom(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Symptom(name, "bad", "not installed", "install tunegate again")
    if lacks_training:
        message = "not installed (extra `train`): this machine curates, decides and reports"
        yield Symptom("training", "ok", f"{message}; {install_line('train')}")


def name_clashes(_patient: Patient) -> Iterator[Symptom]:
    """Check that no other distribution ships our top-level names: its files would shadow ours."""
    owners = metadata.packages_distributions()
    clashes = [(name, other) for name in OUR_PACKAGES for other in sorted(set(owners.get(name, [])) - {"tunegate"})]
    for name, other in clashes:
        yield Symptom("names", "bad", f"{other} also ships `{name}`", f"uninstall {other}")
    if not clashes:
        yield Symptom("names", "ok", f"no other distribution ships {', '.join(OUR_PACKAGES)}")


def torch(_patient: Patient) -> Iterator[Symptom]:
    """Check its arithmetic, threads and devices; imports it, which takes seconds."""
    if missing_packages("train"):
        return
    from tasks.model.base_model import torch_facts

    facts = torch_facts()
    n_cores = os.cpu_count() or 1
    precision = f"`dtype: auto` is {'bfloat16' if facts.bfloat16 else 'float32'}"
    fix = f"set OMP_NUM_THREADS to at most {n_cores}"
    yield _rated("arithmetic", facts.n_threads <= n_cores, f"{counted(facts.n_threads, 'thread')}, {precision}", fix)
    for device in facts.devices:
        yield Symptom("device", "ok", device)


def config(patient: Patient) -> Iterator[Symptom]:
    """Check that the file loads."""
    names = sorted(load_file(patient.config).pipelines)
    yield Symptom("config", "ok", f"{patient.config}: {', '.join(names)}")


def disk(patient: Patient) -> Iterator[Symptom]:
    """Check that the state folder and the cache have space and are writable."""
    for what, place in (("disk", patient.settings.home), ("cache", patient.settings.cache)):
        folder = place
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free / 1e9
        fix = f"free some space: a base model and a few runs need {MIN_FREE_GB:g} GB"
        yield _rated(what, free >= MIN_FREE_GB, f"{free:.1f} GB free at {place}", fix)
        if not os.access(folder, os.W_OK):
            variable = "TUNEGATE_HOME" if what == "disk" else "TUNEGATE_CACHE"
            yield Symptom(what, "bad", f"{folder} is not writable", f"set {variable}")


def clock(_patient: Patient) -> Iterator[Symptom]:
    """Check that no test clock is still set."""
    if os.environ.get(VARIABLE):
        yield Symptom("clock", "warn", f"{VARIABLE} is set: ticks and cooldowns use {now()}", f"unset {VARIABLE}")


def locks(patient: Patient) -> Iterator[Symptom]:
    """Show who holds a pipeline or a resource; a lock ends with its process, so there are no stale ones to remove."""
    held = 0
    for path in sorted((patient.settings.home / "locks").glob("*.lock")):
        holder = is_locked(patient.settings.home, path.stem)
        if holder is not None:
            held += 1
            process = f"process {holder.pid} on {holder.host}"
            yield Symptom("lock", "ok", f"{path.stem} is held by run {holder.run} ({process}) since {holder.since}")
    if not held:
        yield Symptom("locks", "ok", "no pipeline is held")


def ledger(patient: Patient) -> Iterator[Symptom]:
    """Check that it is readable, the one that was here before, its history intact, and every row unchanged."""
    kept = open_ledger(patient.settings)
    kept.check()
    if not kept.exists():
        yield Symptom("ledger", "ok", "no run yet")
        return
    events = kept.history()
    if events and is_before(now(), events[-1].at):
        yield Symptom(
            "clock", "warn", f"it is {now()}, and the last decision about a champion is dated {events[-1].at}",
            "set this machine's clock, or that of the host that decided: the next decision would be dated before its "
            "predecessor",
        )  # fmt: skip
    yield Symptom(
        "ledger", "ok", f"{counted(len(events), 'move')} of a champion, history intact, every row as it was written"
    )


def interrupted(patient: Patient) -> Iterator[Symptom]:
    """Find runs whose process ended unexpectedly."""
    for row in open_ledger(patient.settings).mark_interrupted():
        yield Symptom("run", "warn", f"{row.run_id} was interrupted", f"tunegate run {row.pipeline}")


def pending_sync(patient: Patient) -> Iterator[Symptom]:
    """Count the changes that MLflow does not have yet."""
    if not open_ledger(patient.settings).exists():
        return
    n_pending = len(open_ledger(patient.settings).pending_projections())
    state = f"{counted(n_pending, 'change is', 'changes are')} pending" if n_pending else "is up to date"
    yield _rated("sync", not n_pending, f"MLflow: {state}", "tunegate ops reconcile")


def warehouses(patient: Patient) -> Iterator[Symptom]:
    """Check that every published warehouse opens, and has the fate of each row read."""
    home = patient.settings.home
    for folder in sorted((home / "warehouse").glob("*/")):
        path = warehouse_folder(home, folder.name) / "warehouse.duckdb"
        if not path.exists():
            continue
        fix = f"tunegate data curate {folder.name}"
        try:
            with connect(path, read_only=True) as client:
                row = client.execute("SELECT count(*), (SELECT n_read FROM snapshot) FROM fate").fetchone()
        except LockedError as error:
            yield Symptom(
                "warehouse", "warn", f"{folder.name}: {error.message}", error.hint or "close the other program"
            )
        except StorageError as error:
            yield Symptom("warehouse", "bad", f"{folder.name}: {error.code}: {error.message}", fix)
        except Exception as error:  # DuckDB's text may quote a row
            yield Symptom("warehouse", "bad", f"{folder.name}: cannot be queried ({type(error).__name__})", fix)
        else:
            whole = row is not None and row[0] == row[1]
            found = f"{row[0] if row else 0:,} rows, each with its fate" if whole else "rows are missing"
            yield _rated("warehouse", whole, f"{folder.name}: {found}", fix, otherwise="bad")


def mlflow_store(patient: Patient) -> Iterator[Symptom]:
    """Check that the embedded MLflow store is an intact database."""
    path = patient.settings.home / "mlflow" / "mlflow.db"
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as database:
            (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        answer = str(error)
    message = f"{path.name} is intact" if answer == "ok" else answer
    fix = "move it away: `tunegate ops reconcile` fills a new one"
    yield _rated("mlflow store", answer == "ok", message, fix, otherwise="bad")


def champions(patient: Patient) -> Iterator[Symptom]:
    """Check the sha256 of every file of every champion, and the digests that the ledger recorded."""
    for champion in open_ledger(patient.settings).champions():
        what = f"{champion.name} v{champion.version}"
        fix = f"tunegate model rollback PIPELINE --reason 'damaged files of v{champion.version}'"
        try:
            is_trained = isinstance(champion, ChampionRef)
            parts = (champion.files, champion.judged, *([champion.model] if is_trained else []))
            wrong = [part.root.parent.name for part in parts if verify(part.root) != part.digest]
            if not wrong:
                check_champion(open_ledger(patient.settings), champion.name)
        except StorageError as error:
            yield Symptom("champion", "bad", f"{what}: {error.code}: {error.message}", error.hint or fix)
            continue
        if wrong:
            yield Symptom("champion", "bad", f"{what}: {', '.join(wrong)} is not what the ledger recorded", fix)
        else:
            yield Symptom("champion", "ok", f"{what}: every file has its sha256, {champion.files.digest[:12]}")


def local_servers(patient: Patient) -> Iterator[Symptom]:
    """Check the servers that were started here; they listen only on loopback."""
    servers = running(patient.settings.home, *users_homes(patient.settings.state))
    for server in servers:
        answers = answer_code(server.url + HEALTH[server.kind]) is not None
        message = f"{server.kind} at {server.url} {'answers' if answers else 'does not answer'}"
        yield _rated(
            "server", answers, message, f"tunegate ops down --all, then tunegate ops up; its log: {server.log}"
        )
    if not servers:
        yield Symptom("servers", "ok", "none is running; a run starts what it needs, `tunegate ops up` starts both")


def prefect(patient: Patient) -> Iterator[Symptom]:
    """Check the server in PREFECT_API_URL."""
    if patient.settings.prefect_api_url:
        yield from _remote("prefect", patient.settings.prefect_api_url, patient)


def mlflow(patient: Patient) -> Iterator[Symptom]:
    """Check every tracking server in a pipeline or MLFLOW_TRACKING_URI."""
    try:
        declared = {spec.registry.tracking_uri for spec in load_file(patient.config).trained.values()}
    except ConfigError:
        declared = {""}
    for uri in sorted({uri or patient.settings.mlflow_tracking_uri or "" for uri in declared}):
        if uri.startswith(("http://", "https://")):
            yield from _remote("mlflow", uri, patient)


def _remote(what: str, url: str, patient: Patient) -> Iterator[Symptom]:
    shown, code = bare_url(url), answer_code(f"{url.rstrip('/')}/health")
    known = any(patient.environ.get(name) for name in LOGIN[what]) or "@" in url
    if code is None:
        yield Symptom(what, "bad", f"{shown} does not answer", f"start it, or correct the address of {what}")
    elif code in (401, 403) and not known:
        yield Symptom(what, "bad", f"{shown} asks for a login", f"set {LOGIN[what][0]}")
    elif code not in (200, 401, 403):
        yield Symptom(what, "bad", f"{shown} answers {code} instead of 200", "see the server's log")
    else:
        yield Symptom(what, "ok", f"{shown} answers")


def cluster(patient: Patient) -> Iterator[Symptom]:
    """Check, for pipelines with `engine: ray`, the address, the shared storage and every node. Joins the cluster."""
    declared = [spec for spec in load_file(patient.config).pipelines.values() if spec.engine == "ray"]
    if not declared:
        return
    place = check_cluster(declared[0], patient.settings)
    if place is None:
        return
    for node in nodes_of(place):
        if node.fault is None:
            yield Symptom("node", "ok", f"{node.name}: same Python, libraries and source; sees {place.shared}")
        else:
            yield Symptom("node", "bad", f"{node.fault.code}: {node.fault.message}", node.fault.hint or "")


def sources(patient: Patient) -> Iterator[Symptom]:
    """Check, for remote sources, extra, credential and what was ingested. Contacts no service."""
    for spec in load_file(patient.config).pipelines.values():
        message = ingested_summary(spec, patient.settings)
        if message is None:
            continue
        fault = source_fault(spec.source, pipeline=spec.name)
        if fault is not None:
            yield Symptom("source", "bad", f"{spec.name}: {fault.code}: {fault.message}", fault.hint or "")
        else:
            yield Symptom("source", "ok", f"{spec.name}: {message}")


def rights(patient: Patient) -> Iterator[Symptom]:
    """Check that only its user can read the state folder: it holds ticket text and weights."""
    home = patient.settings.home
    if not home.is_dir():
        return
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode & 0o077:
        message = f"other users of this machine can read {home} (mode {mode:04o})"
        yield Symptom("rights", "warn", message, f"chmod 700 {home}")
    else:
        yield Symptom("rights", "ok", f"only this user can read {home}")


def exposure(patient: Patient) -> Iterator[Symptom]:
    """Check the servers that runs use and those started here: can other machines reach them, and without a login?"""
    for kind, url in sorted(set(_servers(patient))):
        yield from judge_server(kind, url, environ=patient.environ)


def judge_server(kind: str, url: str, *, environ: Mapping[str, str]) -> Iterator[Symptom]:
    """Yield findings about one server; none if only this machine can reach it."""
    parts = urllib.parse.urlsplit(url)
    place = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)  # without the login in the address
    remote = not is_loopback(parts.hostname or "")
    if not remote and not reachable_from_elsewhere(parts.port or 80):
        return
    code = answer_code(bare_url(url).rstrip("/") + _PROTECTED[kind])  # without credentials
    answers = code is not None and code not in (401, 403)
    if not answers and (code is not None or any(environ.get(name) for name in LOGIN[kind])):
        yield Symptom(kind, "ok", f"{place} can be reached from other machines and asks for a login")
    else:
        state = "answers anyone" if answers else "does not answer, and no login is set here"
        yield Symptom(kind, "warn", f"{place} can be reached from other machines and {state}", _FIX[kind])
    if remote and parts.scheme == "http":
        message = f"logins and figures are sent to {place} unencrypted"
        yield Symptom(kind, "warn", message, "put a proxy with TLS in front of it, and use https")


def reachable_from_elsewhere(port: int, *, proc: Path = Path("/proc")) -> bool:
    """Return whether something on this machine listens on the port at an address other than loopback (Linux only)."""
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (proc / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            local, state = line.split()[1], line.split()[3]
            address, _, number = local.partition(":")
            if state == _LISTENING and int(number, 16) == port and not _address(address).is_loopback:
                return True
    return False


def _address(digits: str) -> IPv4Address | IPv6Address:
    # The kernel writes each 32 bits of an address in the machine's byte order.
    words = [socket.htonl(int(digits[start : start + 8], 16)).to_bytes(4, "big") for start in range(0, len(digits), 8)]
    address = ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address


def _servers(patient: Patient) -> Iterator[tuple[str, str]]:
    settings = patient.settings
    for server in running(settings.home, *users_homes(settings.state)):
        yield server.kind, server.url + ("/api" if server.kind == "prefect" else "")
    if settings.prefect_api_url:
        yield "prefect", settings.prefect_api_url
    uris = [settings.mlflow_tracking_uri or ""]
    uris += [spec.registry.tracking_uri for spec in load_file(patient.config).trained.values()]
    for uri in uris:
        if uri.startswith(("http://", "https://")):
            yield "mlflow", uri


CHECKS: tuple[Check, ...] = (
    python, packages, name_clashes, torch, config, disk, clock,
    rights, locks, ledger, interrupted, warehouses, mlflow_store,
    champions, pending_sync,
    local_servers, prefect, mlflow, sources, cluster, exposure,
)  # fmt: skip


def examine(check: Check, patient: Patient) -> Iterator[Symptom]:
    """What one check finds; its error is a finding too, and ends no other check."""
    try:
        with named_disk_errors(patient.settings.home):
            yield from check(patient)
    except TunegateError as error:
        fix = error.hint or f"tunegate explain {error.code}"
        yield Symptom(check.__name__, "bad", f"{error.code}: {error.message}", fix)
    except Exception as error:  # files may be damaged in any way; the message may quote a ticket
        message = f"cannot be checked ({type(error).__name__})"
        yield Symptom(check.__name__, "bad", message, "restore it from a backup, or report this")
