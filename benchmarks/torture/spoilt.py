"""Files and rows that are damaged, truncated, emptied or altered: in the store, a checkpoint, a database.

Edits that bypass tunegate must be detected; the ledger is then restored, a result recomputed. An exchanged result still
matches its own manifest, a damaged one does not.
"""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.torture import fork
from benchmarks.torture.fork import PIPELINE
from benchmarks.torture.homes import HOME, environment
from benchmarks.torture.trial import Trial, fault
from flows.ledger.ledger import Ledger
from flows.ledger.tables import BOOKS
from tasks.storage.failpoint import VARIABLE
from tasks.storage.sealed_folder import MANIFEST, seal

LATER_STAGES = ("finetune", "assess", "release")
"""Stages with stored results of earlier ones."""


@fault("stored file cut off", "a file of the store loses its end", quick=0, full=30)
def stored_cut(trial: Trial) -> Iterator[str]:
    yield _damage(trial, _any_file(trial, trial.home / "store", trial.begin(trial.rng.choice(LATER_STAGES))), cut=True)


@fault("stored file altered", "one bit of the store is flipped", quick=1, full=60)
def stored_altered(trial: Trial) -> Iterator[str]:
    yield _damage(trial, _any_file(trial, trial.home / "store", trial.begin(trial.rng.choice(LATER_STAGES))), cut=False)


@fault("checkpoint damaged", "training killed, then a file of its scratch folder cut off or altered", quick=1, full=30)
def checkpoint(trial: Trial) -> Iterator[str]:
    trial.begin("finetune")
    scratch = trial.home / "scratch" / "train"
    child = trial.start()
    while child.is_alive() and not any(scratch.glob("*/checkpoints/step-*")):
        time.sleep(0.01)
    child.kill()  # its training ends with it
    trial.record(child.wait())
    found = _any_file(trial, scratch, "")
    yield _damage(trial, found, cut=trial.rng.random() < 0.5)


@fault("warehouse damaged", "the published DuckDB file emptied, cut off, altered", quick=0, full=12)
def published(trial: Trial) -> Iterator[str]:
    trial.begin(trial.rng.choice(LATER_STAGES))
    yield _break(trial, trial.home / "warehouse" / PIPELINE / "warehouse.duckdb")


@fault("ledger damaged", "refused until it is restored", quick=1, full=12)
def ledger(trial: Trial) -> Iterator[str]:
    """Empty or truncate the ledger; the run must refuse, and continue once the ledger is restored."""
    trial.begin("release")
    trial.run(**{VARIABLE: "ledger.promote.committed"})
    aside = trial.folder / "aside"
    aside.mkdir()
    for path in trial.home.glob("ledger.sqlite*"):
        shutil.copy(path, aside / path.name)
    for path in trial.home.glob("ledger.sqlite-*"):
        path.unlink()
    harm = _break(trial, trial.home / "ledger.sqlite", ways=("emptied", "cut off"))
    ended = trial.run()
    if ended.code in (0, 70) or ended.error == "TG0001":
        raise RuntimeError(f"a run continued with a ledger that was {harm}: {ended.code} {ended.error}")
    for path in trial.home.glob("ledger.sqlite*"):
        path.unlink()
    for path in aside.iterdir():
        shutil.copy(path, trial.home / path.name)
    yield f"{harm}: {ended.error}"


@fault("MLflow's file damaged", "emptied or cut off before the release", quick=0, full=8)
def mlflow(trial: Trial) -> Iterator[str]:
    """Empty, truncate or alter MLflow's database before the release; an empty one replaces it afterwards."""
    trial.begin("release")
    database = trial.home / "mlflow" / "mlflow.db"
    harm = _break(trial, database, ways=("emptied", "cut off"))
    ended = trial.run()
    yield f"{harm}: {ended.error or ended.code}"
    for path in database.parent.glob("mlflow.db*"):
        path.unlink()
    shutil.copy(trial.homes.folder / "curate" / HOME / "mlflow" / "mlflow.db", database)
    _forget_mlflow(trial.home)


def _forget_mlflow(home: Path) -> None:
    """Mark everything that MLflow lost with its database to be sent again."""
    with Ledger(home).write() as db:
        db.execute("UPDATE projections SET done_at = NULL")


def _any_file(trial: Trial, folder: Path, _stage: str) -> Path:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    return trial.rng.choice(found)


def _break(trial: Trial, path: Path, *, ways: tuple[str, ...] = ("emptied", "cut off", "altered")) -> str:
    way = ways[trial.number % len(ways)]
    if way == "emptied":
        path.write_bytes(b"")
        return f"{path.name} emptied"
    return _damage(trial, path, cut=way == "cut off")


def _damage(trial: Trial, path: Path, *, cut: bool) -> str:
    trial.exempt = True
    data = path.read_bytes()
    place = trial.rng.randrange(len(data))
    path.chmod(0o600)
    if cut:
        path.write_bytes(data[:place])
    else:
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << trial.rng.randrange(8))]) + data[place + 1 :])
    name = path.relative_to(trial.home).as_posix()
    return f"{name} {'cut off' if cut else 'altered'} at {place} of {len(data)}"


# Edits that bypass tunegate

TABLES = (*BOOKS, "journal")
FOUND = ("TG0580", "TG0580", "TG0581")
FOREIGN = "TG0581"


@fault("ledger edited", "a column of a row of each table in turn: refused until it is restored", quick=2, full=51)
def ledger_row(trial: Trial) -> Iterator[str]:
    """Edit a column of a row of each table in turn, without triggers, once there is a champion; the run must refuse."""
    trial.begin("release")
    trial.run()
    aside = trial.folder / "aside"
    aside.mkdir()
    with closing(sqlite3.connect(trial.home / "ledger.sqlite", isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        tables = [table for table in TABLES if db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()]
    shutil.copy(trial.home / "ledger.sqlite", aside)
    harm = _edit(trial, tables[trial.number % len(tables)])
    ended = trial.run()
    if ended.error not in FOUND:
        raise RuntimeError(f"a run continued with a ledger in which {harm}: {ended.code} {ended.error}")
    for path in trial.home.glob("ledger.sqlite*"):
        path.unlink()
    shutil.copy(aside / "ledger.sqlite", trial.home)
    yield f"{harm}: {ended.error}"


@fault("result exchanged", "one bit flipped, the manifest adapted: recomputed", quick=2, full=40)
def stored_result(trial: Trial) -> Iterator[str]:
    """Flip one bit of a stored result and seal it again: it is intact, but a different result."""
    trial.begin(trial.rng.choice(LATER_STAGES))
    places = sorted(place for place in (trial.home / "store").glob("*/*") if place.is_dir())
    place = places[trial.number % len(places)]
    files = sorted(
        path for path in place.rglob("*") if path.is_file() and path.stat().st_size and path.name != MANIFEST
    )
    path = trial.rng.choice(files)
    data = path.read_bytes()
    at = trial.rng.randrange(len(data))
    path.chmod(0o600)
    path.write_bytes(data[:at] + bytes([data[at] ^ (1 << trial.rng.randrange(8))]) + data[at + 1 :])
    seal(place)
    trial.exempt = True
    yield f"{path.relative_to(trial.home)} altered at {at} of {len(data)} and sealed again"


@fault("second home", "another ledger, the same MLflow and name: refused", quick=1, full=4)
def second_home(trial: Trial) -> Iterator[str]:
    """Use another home, with its own ledger, with the same MLflow and name: refused before it promotes."""
    trial.begin("release")
    other = trial.homes.copy("curate", trial.folder / "other")
    ended = trial.run()
    if ended.code:
        raise RuntimeError(f"exit code {ended.code} {ended.error}")
    shared = {"MLFLOW_TRACKING_URI": f"sqlite:///{trial.home / 'mlflow' / 'mlflow.db'}"}
    child = fork.start(other, trial.folder / "other.txt", fork.pipeline_run(), environ={**environment(other), **shared})
    refused = child.wait()
    if refused.error != FOREIGN:
        raise RuntimeError(f"the second home was not refused: {refused.code} {refused.error}")
    if Ledger(other / HOME).champions():
        raise RuntimeError("the second home promoted")
    yield f"refused with {refused.error}"


def _edit(trial: Trial, table: str) -> str:
    with closing(sqlite3.connect(trial.home / "ledger.sqlite", isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("PRAGMA ignore_check_constraints = ON")
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        rows = [rowid for (rowid,) in db.execute(f"SELECT rowid FROM {table} ORDER BY rowid").fetchall()]
        columns = [(name, kind) for _, name, kind, *_ in db.execute(f"PRAGMA table_info({table})").fetchall()]
        (column, kind), rowid = trial.rng.choice(columns), trial.rng.choice(rows)
        new = f"coalesce({column}, '') || '1'" if kind == "TEXT" else f"coalesce({column}, 0) + 100000"
        db.execute(f"UPDATE {table} SET {column} = {new} WHERE rowid = ?", (rowid,))
    return f"{column} of row {rowid} of {table} was edited"
