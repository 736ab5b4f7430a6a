"""Damaged files: cut off, emptied, one byte altered; in the store, a checkpoint, a database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.torture.homes import HOME
from benchmarks.torture.trial import Fault, Trial
from benchmarks.torture.world import PIPELINE
from flows.engine.ledger import Ledger
from tasks.failpoint import VARIABLE

BEHIND = ("finetune", "assess", "release")
"""Stages that have stored results before them."""


@contextmanager
def stored_cut(trial: Trial) -> Iterator[str]:
    """A file of a stored result is cut off."""
    yield _damage(trial, _any_file(trial, trial.home / "store", trial.begin(trial.dice.choice(BEHIND))), cut=True)


@contextmanager
def stored_altered(trial: Trial) -> Iterator[str]:
    """A byte of a stored result is altered; its size and its time stay."""
    yield _damage(trial, _any_file(trial, trial.home / "store", trial.begin(trial.dice.choice(BEHIND))), cut=False)


@contextmanager
def checkpoint(trial: Trial) -> Iterator[str]:
    """A training is killed, then a file of its checkpoints is cut off or altered."""
    trial.begin("finetune")
    trial.run(**{VARIABLE: f"train.checkpoint.renamed:{trial.dice.randint(1, 4)}"})
    found = _any_file(trial, trial.home / "scratch" / "train", "")
    yield _damage(trial, found, cut=trial.dice.random() < 0.5)


@contextmanager
def published(trial: Trial) -> Iterator[str]:
    """The published warehouse is emptied, cut off or altered."""
    trial.begin(trial.dice.choice(BEHIND))
    yield _break(trial, trial.home / "warehouse" / PIPELINE / "warehouse.duckdb")


@contextmanager
def ledger(trial: Trial) -> Iterator[str]:
    """The ledger is emptied or cut off; the run has to refuse, and goes on when the ledger is put back."""
    trial.begin("release")
    trial.run(**{VARIABLE: "ledger.promote.committed"})
    aside = trial.folder / "aside"
    aside.mkdir()
    for path in trial.home.glob("ledger.sqlite*"):
        shutil.copy(path, aside / path.name)
    for path in trial.home.glob("ledger.sqlite-*"):
        path.unlink()
    told = _break(trial, trial.home / "ledger.sqlite", ways=("emptied", "cut off"))
    ended = trial.run()
    if ended.code in (0, 70) or ended.error == "TG0001":
        raise RuntimeError(f"a run went on with a ledger that was {told}: {ended.code} {ended.error}")
    for path in trial.home.glob("ledger.sqlite*"):
        path.unlink()
    for path in aside.iterdir():
        shutil.copy(path, trial.home / path.name)
    yield f"{told}: {ended.error}"


@contextmanager
def mlflow(trial: Trial) -> Iterator[str]:
    """MLflow's database is emptied, cut off or altered before the release; afterwards an empty one is put there."""
    trial.begin("release")
    database = trial.home / "mlflow" / "mlflow.db"
    told = _break(trial, database, ways=("emptied", "cut off"))
    ended = trial.run()
    yield f"{told}: {ended.error or ended.code}"
    for path in database.parent.glob("mlflow.db*"):
        path.unlink()
    shutil.copy(trial.homes.folder / "curate" / HOME / "mlflow" / "mlflow.db", database)
    _forget_mlflow(trial.home)


def _forget_mlflow(home: Path) -> None:
    """What MLflow lost with its database has to be told again."""
    with Ledger(home).write() as db:
        db.execute("UPDATE projections SET done_at = NULL")


def _any_file(trial: Trial, folder: Path, _stage: str) -> Path:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    return trial.dice.choice(found)


def _break(trial: Trial, path: Path, *, ways: tuple[str, ...] = ("emptied", "cut off", "altered")) -> str:
    way = ways[trial.number % len(ways)]
    if way == "emptied":
        path.write_bytes(b"")
        return f"{path.name} emptied"
    return _damage(trial, path, cut=way == "cut off")


def _damage(trial: Trial, path: Path, *, cut: bool) -> str:
    trial.exempt = True
    data = path.read_bytes()
    place = trial.dice.randrange(len(data))
    path.chmod(0o600)
    if cut:
        path.write_bytes(data[:place])
    else:
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << trial.dice.randrange(8))]) + data[place + 1 :])
    name = path.relative_to(trial.home).as_posix()
    return f"{name} {'cut off' if cut else 'altered'} at {place} of {len(data)}"


DAMAGE = (
    Fault("stored file cut off", "a file of the store loses its end", stored_cut, 0, 30),
    Fault("stored file altered", "one bit of the store is flipped", stored_altered, 1, 60),
    Fault(
        "checkpoint damaged", "training killed, then a file of its scratch folder cut off or altered", checkpoint, 1, 30
    ),
    Fault("warehouse damaged", "the published DuckDB file emptied, cut off, altered", published, 0, 12),
    Fault("ledger damaged", "refused until it is put back", ledger, 1, 12),
    Fault("MLflow's file damaged", "emptied or cut off before the release", mlflow, 0, 8),
)
