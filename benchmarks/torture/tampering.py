"""Somebody who writes past tunegate: into each table of the ledger, over each stored result, into one MLflow for two.

What was edited has to be found; the ledger is put back then, a result is made again. What was exchanged is whole by
its own word: `damage.py` is about what is not.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from benchmarks.torture import fork
from benchmarks.torture.damage import BEHIND
from benchmarks.torture.homes import HOME, environment
from benchmarks.torture.trial import Fault, Trial
from flows.engine.ledger import Ledger
from flows.engine.ledger_tables import BOOKS
from tasks.files import MANIFEST, seal

TABLES = (*BOOKS, "journal")
FOUND = ("TG0533", "TG0580", "TG0581")
FOREIGN = "TG0582"


@contextmanager
def ledger_row(trial: Trial) -> Iterator[str]:
    """A column of a row of the tables in turn is edited, triggers taken away; the run has to refuse."""
    trial.begin("release")
    table = TABLES[trial.number % len(TABLES)]
    aside = trial.folder / "aside"
    aside.mkdir()
    with closing(sqlite3.connect(trial.home / "ledger.sqlite", isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(trial.home / "ledger.sqlite", aside)
    told = _edit(trial, table)
    if not told:
        trial.fired = False
        yield f"{table} has no row"
        return
    ended = trial.run()
    if ended.error not in FOUND:
        raise RuntimeError(f"a run went on with a ledger in which {told}: {ended.code} {ended.error}")
    for path in trial.home.glob("ledger.sqlite*"):
        path.unlink()
    shutil.copy(aside / "ledger.sqlite", trial.home)
    yield f"{told}: {ended.error}"


@contextmanager
def stored_result(trial: Trial) -> Iterator[str]:
    """One bit of a stored result is flipped, and its manifest made anew: it is whole, and another one."""
    trial.begin(trial.dice.choice(BEHIND))
    places = sorted(place for place in (trial.home / "store").glob("*/*") if place.is_dir())
    place = places[trial.number % len(places)]
    files = sorted(
        path for path in place.rglob("*") if path.is_file() and path.stat().st_size and path.name != MANIFEST
    )
    path = trial.dice.choice(files)
    data = path.read_bytes()
    at = trial.dice.randrange(len(data))
    path.chmod(0o600)
    path.write_bytes(data[:at] + bytes([data[at] ^ (1 << trial.dice.randrange(8))]) + data[at + 1 :])
    seal(place)
    trial.exempt = True
    yield f"{path.relative_to(trial.home)} altered at {at} of {len(data)} and sealed anew"


@contextmanager
def second_home(trial: Trial) -> Iterator[str]:
    """Another home with a ledger of its own tells the same MLflow of the same name: refused before it promotes."""
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
        if not rows:
            return ""
        columns = [(name, kind) for _, name, kind, *_ in db.execute(f"PRAGMA table_info({table})").fetchall()]
        (column, kind), rowid = trial.dice.choice(columns), trial.dice.choice(rows)
        new = f"coalesce({column}, '') || '1'" if kind == "TEXT" else f"coalesce({column}, 0) + 100000"
        db.execute(f"UPDATE {table} SET {column} = {new} WHERE rowid = ?", (rowid,))
    return f"{column} of row {rowid} of {table} was edited"


TAMPERING = (
    Fault("ledger edited", "a column of a row of each table in turn: refused until it is put back", ledger_row, 2, 51),
    Fault("result exchanged", "one bit flipped, the manifest made anew: made again", stored_result, 2, 40),
    Fault("second home", "another ledger, the same MLflow and name: refused", second_home, 1, 4),
)
