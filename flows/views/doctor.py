"""What `tunegate ops doctor` checks, one small function each; `flows/cli/ops.py` prints what they find.

In this order: the machine (Python, packages, torch and its devices, disk, clock), what lies in the state folder
(locks, ledger, warehouses, MLflow's store, the champions' files), and the servers. Nothing is repaired, but runs whose
process is gone are marked, as by `tunegate runs`; nothing is started, and nothing is sent but a request for health. Who
else can reach the servers is reported by `flows/exposure.py`.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

from flows.context.ingest import source_fault, told_without_asking
from flows.context.published import warehouse_folder
from flows.ledger.opened import open_ledger
from flows.views.champion_files import check_champion
from flows.workspace.clock import VARIABLE, present
from flows.workspace.lock import is_locked
from flows.workspace.ray_cluster import check_cluster
from flows.workspace.servers import answer_code, running
from flows.workspace.settings import Settings
from schemas.errors import ConfigError, LockedError, StorageError
from schemas.load import load_file
from tasks.files import verify
from tasks.warehouse import connect

MIN_FREE_GB = 5.0
OUR_PACKAGES = ("flows", "tasks", "schemas")
NEEDED = ("torch", "transformers", "duckdb", "prefect", "mlflow")
HEALTH = {"prefect": "/api/health", "mlflow": "/health"}
PREFECT_LOGIN = ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY")
MLFLOW_LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    state: str
    """`ok`, `warn` or `bad`."""
    told: str
    fix: str = ""


@dataclass(frozen=True)
class Patient:
    """What is looked at."""

    settings: Settings
    config: Path
    environ: Mapping[str, str]


Check: TypeAlias = Callable[[Patient], Iterator[Finding]]


def bare_url(url: str) -> str:
    """The address without a user and password that may stand in it.

    >>> bare_url("http://ann:secret@db.example:5000/api")
    'http://db.example:5000/api'
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))


def python(_patient: Patient) -> Iterator[Finding]:
    """Its version, and what the processor has."""
    fit = (3, 11) <= sys.version_info[:2] <= (3, 14)
    told = f"{sys.version.split()[0]}, {os.cpu_count()} cores"
    yield Finding("python", "ok" if fit else "bad", told, "" if fit else "use Python 3.11 to 3.14")


def packages(_patient: Patient) -> Iterator[Finding]:
    """Is everything installed that a run imports?"""
    for name in NEEDED:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "bad", "not installed", "make install")


def name_clashes(_patient: Patient) -> Iterator[Finding]:
    """No other distribution may ship our top-level names: its files would shadow ours."""
    owners = metadata.packages_distributions()
    clashes = [(name, other) for name in OUR_PACKAGES for other in sorted(set(owners.get(name, [])) - {"tunegate"})]
    for name, other in clashes:
        yield Finding("names", "bad", f"{other} also ships `{name}`", f"uninstall {other}")
    if not clashes:
        yield Finding("names", "ok", f"no other distribution ships {', '.join(OUR_PACKAGES)}")


def torch(_patient: Patient) -> Iterator[Finding]:
    """Its arithmetic, threads and devices; imports it, which takes seconds."""
    from tasks.model.base_model import torch_facts

    facts = torch_facts()
    n_cores = os.cpu_count() or 1
    told = f"{facts.n_threads} threads, {'bfloat16' if facts.bfloat16 else 'float32: no bfloat16 products in hardware'}"
    crowded = facts.n_threads > n_cores
    yield Finding(
        "arithmetic", "warn" if crowded else "ok", told,
        f"set OMP_NUM_THREADS to at most {n_cores}" if crowded else "",
    )  # fmt: skip
    for device in facts.devices:
        yield Finding("device", "ok", device)


def config(patient: Patient) -> Iterator[Finding]:
    """Does the loader take the file?"""
    names = sorted(load_file(patient.config).pipelines)
    yield Finding("config", "ok", f"{patient.config}: {', '.join(names)}")


def disk(patient: Patient) -> Iterator[Finding]:
    """Is there room, and may it be written to? For the state folder and for the cache."""
    for what, place in (("disk", patient.settings.home), ("cache", patient.settings.cache)):
        folder = place
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free / 1e9
        roomy = free >= MIN_FREE_GB
        yield Finding(
            what, "ok" if roomy else "warn", f"{free:.1f} GB free at {place}",
            "" if roomy else f"make room: {MIN_FREE_GB:g} GB hold a base model and a few runs",
        )  # fmt: skip
        if not os.access(folder, os.W_OK):
            variable = "TUNEGATE_HOME" if what == "disk" else "TUNEGATE_CACHE"
            yield Finding(what, "bad", f"{folder} is not writable", f"set {variable}")


def clock(_patient: Patient) -> Iterator[Finding]:
    """Is a test's clock left behind?"""
    if os.environ.get(VARIABLE):
        told = f"{VARIABLE} is set: it is {present().isoformat(timespec='seconds')} for every tick and cooldown"
        yield Finding("clock", "warn", told, f"unset {VARIABLE}")


def locks(patient: Patient) -> Iterator[Finding]:
    """Who holds a pipeline; a lock ends with its process, so there are no stale ones to remove."""
    held = 0
    for path in sorted((patient.settings.home / "locks").glob("*.lock")):
        holder = is_locked(patient.settings.home, path.stem)
        if holder is not None:
            held += 1
            told = (
                f"{path.stem} is held by run {holder.run} (process {holder.pid} on {holder.host}) since {holder.since}"
            )
            yield Finding("lock", "ok", told)
    if not held:
        yield Finding("locks", "ok", "no pipeline is held")


def ledger(patient: Patient) -> Iterator[Finding]:
    """Is it readable, the one that was here before, its history whole, and every row what was written?"""
    if not open_ledger(patient.settings).exists():
        open_ledger(patient.settings).check()
        yield Finding("ledger", "ok", "no run yet")
        return
    open_ledger(patient.settings).check()
    events = open_ledger(patient.settings).history()
    yield Finding("ledger", "ok", f"{len(events)} moves of a champion, history whole, every row as it was written")


def interrupted(patient: Patient) -> Iterator[Finding]:
    """Runs that ended without a word."""
    if open_ledger(patient.settings).exists():
        for row in open_ledger(patient.settings).mark_interrupted():
            yield Finding("run", "warn", f"{row.run_id} was interrupted", f"tunegate run {row.pipeline}")


def pending_sync(patient: Patient) -> Iterator[Finding]:
    """What MLflow has not been told yet."""
    if not open_ledger(patient.settings).exists():
        return
    n_pending = len(open_ledger(patient.settings).pending_projections())
    told = f"{n_pending} changes not told" if n_pending else "told everything"
    yield Finding(
        "sync", "warn" if n_pending else "ok", f"MLflow: {told}", "tunegate ops reconcile" if n_pending else ""
    )


def warehouses(patient: Patient) -> Iterator[Finding]:
    """Does every published warehouse open, and has it a row of fate for each row read?"""
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
            yield Finding(
                "warehouse", "warn", f"{folder.name}: {error.message}", error.hint or "close the other program"
            )
        except StorageError as error:
            yield Finding("warehouse", "bad", f"{folder.name}: {error.code}: {error.message}", fix)
        except Exception as error:  # of DuckDB, whose words may quote a row
            yield Finding("warehouse", "bad", f"{folder.name}: cannot be asked ({type(error).__name__})", fix)
        else:
            whole = row is not None and row[0] == row[1]
            told = f"{folder.name}: {row[0] if row else 0:,} rows, each with its fate"
            yield Finding("warehouse", "ok" if whole else "bad", told if whole else f"{folder.name}: rows are missing",
                          "" if whole else fix)  # fmt: skip


def mlflow_store(patient: Patient) -> Iterator[Finding]:
    """Is the embedded MLflow store a whole database?"""
    path = patient.settings.home / "mlflow" / "mlflow.db"
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as database:
            (told,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        told = str(error)
    whole = told == "ok"
    fix = "" if whole else "move it away: `tunegate ops reconcile` tells a new one everything"
    yield Finding("mlflow store", "ok" if whole else "bad", f"{path.name} is whole" if whole else told, fix)


def champions(patient: Patient) -> Iterator[Finding]:
    """Has every file of every champion its sha256, and the whole the digest that the ledger recorded?"""
    if not open_ledger(patient.settings).exists():
        return
    for champion in open_ledger(patient.settings).champions():
        what = f"{champion.name} v{champion.version}"
        fix = f"tunegate model rollback PIPELINE --reason 'damaged files of v{champion.version}'"
        try:
            parts = (champion.bundle, champion.trained, champion.model)
            wrong = [part.root.parent.name for part in parts if verify(part.root) != part.digest]
            if not wrong:
                check_champion(open_ledger(patient.settings), champion.name)
        except StorageError as error:
            yield Finding("champion", "bad", f"{what}: {error.code}: {error.message}", error.hint or fix)
            continue
        if wrong:
            yield Finding("champion", "bad", f"{what}: {', '.join(wrong)} is not what the ledger recorded", fix)
        else:
            yield Finding("champion", "ok", f"{what}: every file has its sha256, {champion.bundle.digest[:12]}")


def local_servers(patient: Patient) -> Iterator[Finding]:
    """Those that were started here; they listen on loopback alone."""
    servers = running(patient.settings.home)
    for server in servers:
        answers = answer_code(server.url + HEALTH[server.kind]) is not None
        fix = "" if answers else f"tunegate ops down, then tunegate ops up; its log: {server.log}"
        told = f"{server.kind} at {server.url} {'answers' if answers else 'does not answer'}"
        yield Finding("server", "ok" if answers else "warn", told, fix)
    if not servers:
        yield Finding("servers", "ok", "none runs here; a run starts what it needs, `tunegate ops up` both")


def prefect(patient: Patient) -> Iterator[Finding]:
    """The server that PREFECT_API_URL names."""
    url = patient.settings.prefect_api_url
    if url:
        yield from _remote("prefect", url, f"{url.rstrip('/')}/health", PREFECT_LOGIN, patient)


def mlflow(patient: Patient) -> Iterator[Finding]:
    """Every tracking server that a pipeline or MLFLOW_TRACKING_URI names."""
    try:
        declared = {spec.registry.tracking_uri for spec in load_file(patient.config).pipelines.values()}
    except ConfigError:
        declared = {""}
    for uri in sorted({uri or patient.settings.mlflow_tracking_uri or "" for uri in declared}):
        if uri.startswith(("http://", "https://")):
            yield from _remote("mlflow", uri, f"{uri.rstrip('/')}/health", MLFLOW_LOGIN, patient)


def _remote(what: str, url: str, health: str, login: tuple[str, ...], patient: Patient) -> Iterator[Finding]:
    shown, code = bare_url(url), answer_code(health)
    known = any(patient.environ.get(name) for name in login) or "@" in url
    if code is None:
        yield Finding(what, "bad", f"{shown} does not answer", f"start it, or correct the address of {what}")
    elif code in (401, 403) and not known:
        yield Finding(what, "bad", f"{shown} asks who you are", f"set {login[0]}")
    elif code not in (200, 401, 403):
        yield Finding(what, "bad", f"{shown} answers {code} instead of 200", "look into the server's log")
    else:
        yield Finding(what, "ok", f"{shown} answers")


def cluster(patient: Patient) -> Iterator[Finding]:
    """Of pipelines with `engine: ray`: the address, the shared storage, and every node. Joins the cluster."""
    declared = [spec for spec in load_file(patient.config).pipelines.values() if spec.engine == "ray"]
    if not declared:
        return
    place = check_cluster(declared[0], patient.settings)
    if place is None:
        return
    from tasks.cluster.nodes import look_at_nodes

    for node in look_at_nodes(place):
        if node.fault is None:
            yield Finding("node", "ok", f"{node.name}: same Python, libraries and source; sees {place.shared}")
        else:
            yield Finding("node", "bad", f"{node.fault.code}: {node.fault.message}", node.fault.hint or "")


def sources(patient: Patient) -> Iterator[Finding]:
    """Of sources behind a connection: extra, credential, and what was brought in. Nobody is asked."""
    for spec in load_file(patient.config).pipelines.values():
        told = told_without_asking(spec, patient.settings)
        if told is None:
            continue
        fault = source_fault(spec)
        if fault is not None:
            yield Finding("source", "bad", f"{spec.name}: {fault.code}: {fault.message}", fault.hint or "")
        else:
            yield Finding("source", "ok", f"{spec.name}: {told}")
