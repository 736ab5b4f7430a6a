"""Checks of what lies in the state folder: locks, ledger, warehouses, MLflow's store, the champions' files.

Called by `flows/commands/doctor.py`. Nothing is repaired; runs whose process is gone are marked, as by `tunegate runs`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from flows.champion_files import check_champion
from flows.commands.findings import Finding
from flows.engine.lock import is_locked
from flows.health.patient import Patient
from flows.settings import open_ledger
from flows.snapshots import warehouse_folder
from schemas.errors import LockedError, StorageError
from tasks.files import verify
from tasks.warehouse import connect


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
    yield Finding("sync", "warn" if n_pending else "ok", f"MLflow: {told}", "tunegate reconcile" if n_pending else "")


def warehouses(patient: Patient) -> Iterator[Finding]:
    """Does every published warehouse open, and has it a row of fate for each row read?"""
    home = patient.settings.home
    for folder in sorted((home / "warehouse").glob("*/")):
        path = warehouse_folder(home, folder.name) / "warehouse.duckdb"
        if not path.exists():
            continue
        fix = f"tunegate curate {folder.name}"
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
    fix = "" if whole else "move it away: `tunegate reconcile` tells a new one everything"
    yield Finding("mlflow store", "ok" if whole else "bad", f"{path.name} is whole" if whole else told, fix)


def champions(patient: Patient) -> Iterator[Finding]:
    """Has every file of every champion its sha256, and the whole the digest that the ledger recorded?"""
    if not open_ledger(patient.settings).exists():
        return
    for champion in open_ledger(patient.settings).champions():
        what = f"{champion.name} v{champion.version}"
        fix = f"tunegate rollback PIPELINE --reason 'damaged files of v{champion.version}'"
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
