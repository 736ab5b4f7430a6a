"""Others: a second run, holders of locks, alive and dead, servers that are down."""

from __future__ import annotations

import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.torture.fork import Acks, Child, Work
from benchmarks.torture.trial import Fault, Trial
from benchmarks.torture.world import PIPELINE

NOWHERE = "http://127.0.0.1:9"
"""A port that nothing listens on."""
LOCKED = 6
"""Exit code."""


@contextmanager
def two_runs(trial: Trial) -> Iterator[str]:
    """A second run is started while the first works: one of them is told who holds the pipeline."""
    first = trial.homes.stages[trial.begin()]
    runs = [trial.start()]
    time.sleep(trial.dice.uniform(0, first.seconds / 2))
    runs.append(trial.start())
    codes = [trial.heard(run.wait()).code for run in runs]
    trial.fired = LOCKED in codes
    if sorted(codes) not in ([0, 0], [0, LOCKED]):
        raise RuntimeError(f"exit codes {codes}")
    yield f"exit codes {codes}"


@contextmanager
def live_holder(trial: Trial) -> Iterator[str]:
    """Another process holds the pipeline: the run is refused with its name; the lock ends with its holder."""
    trial.begin()
    holder = trial.start(work=_hold_pipeline(trial.home))
    _until(holder, "held")
    ended = trial.run()
    if ended.code != LOCKED or f"pid {holder.pid}" not in ended.said:
        raise RuntimeError(f"exit code {ended.code} instead of {LOCKED}, or the holder is not named")
    holder.kill()
    holder.wait()
    yield f"refused with {ended.error}, the holder was killed"


@contextmanager
def busy_ledger(trial: Trial) -> Iterator[str]:
    """Another process has the ledger's transaction open for a while, then is killed: the run waits for it."""
    trial.begin(trial.dice.choice(("finetune", "assess", "release")))
    holder = trial.start(work=_hold_database(trial.home / "ledger.sqlite", "IMMEDIATE"))
    _until(holder, "held")
    run = trial.start()
    time.sleep(trial.dice.uniform(0.5, 2.0))
    holder.kill()
    holder.wait()
    ended = trial.heard(run.wait())
    if ended.code:
        raise RuntimeError(f"exit code {ended.code} {ended.error}")
    yield "the ledger was busy for a while"


@contextmanager
def busy_mlflow(trial: Trial) -> Iterator[str]:
    """Another process holds MLflow's database during the release: the verdict stands, MLflow is told later."""
    trial.begin("release")
    holder = trial.start(work=_hold_database(trial.home / "mlflow" / "mlflow.db", "EXCLUSIVE"))
    _until(holder, "held")
    ended = trial.run()
    holder.kill()
    holder.wait()
    if ended.code:
        raise RuntimeError(f"exit code {ended.code} {ended.error}")
    yield "MLflow's database was held"


@contextmanager
def dead_mlflow(trial: Trial) -> Iterator[str]:
    """MLflow's server is down."""
    trial.begin("release")
    ended = trial.run(MLFLOW_TRACKING_URI=NOWHERE)
    if ended.code or "sync pending" not in ended.said:
        raise RuntimeError(f"exit code {ended.code} {ended.error}, or nobody was told")
    yield "promoted without MLflow"


@contextmanager
def dead_prefect(trial: Trial) -> Iterator[str]:
    """Prefect's server is down: `tunegate run` itself, with a note."""
    trial.begin("release")
    ended = trial.run(work=_command, PREFECT_API_URL=f"{NOWHERE}/api")
    if ended.code or "without Prefect" not in ended.said:
        raise RuntimeError(f"exit code {ended.code}, or nobody was told")
    yield "promoted without Prefect"


def _command(_acks: Acks) -> int:
    from flows.commands.run import run

    return run(
        pipeline=PIPELINE, config=Path("pipelines.yaml"), again=False, until="release", wait_s=0.0,
        require_mlflow=False, as_json=True,
    )  # fmt: skip


def _hold_pipeline(home: Path) -> Work:
    def work(acks: Acks) -> int:
        from flows.engine.lock import pipeline_lock

        with pipeline_lock(home, PIPELINE, wait_s=0, run_id="somebody"):
            acks.write(kind="held")
            _for_ever()
        return 0

    return work


def _hold_database(path: Path, how: str) -> Work:
    def work(acks: Acks) -> int:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(f"BEGIN {how}")
            acks.write(kind="held")
            _for_ever()
        return 0

    return work


def _for_ever() -> None:
    signal.alarm(100)  # should the campaign itself be killed
    sys.stdout.flush()
    signal.pause()


def _until(child: Child, kind: str) -> None:
    while not any(ack["kind"] == kind for ack in child.acks()):
        if not child.is_alive():
            raise RuntimeError("the holder did not come up")
        time.sleep(0.01)


COMPANY = (
    Fault("two runs at once", "a second run is started while one works", two_runs, 1, 20),
    Fault("lock held, holder killed", "refused with the holder's pid; free when it is dead", live_holder, 1, 8),
    Fault("ledger held", "the run waits until its holder is killed", busy_ledger, 0, 8),
    Fault("MLflow's file held", "the verdict stands, `reconcile` tells MLflow", busy_mlflow, 0, 3),
    Fault("MLflow down", "the verdict stands, `reconcile` tells MLflow", dead_mlflow, 1, 4),
    Fault("Prefect down", "`tunegate run` goes on without it", dead_prefect, 1, 4),
)
