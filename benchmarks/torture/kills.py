"""Kills: at every failpoint, at every nth file operation, at random moments, of the training process alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.torture.injected import kill_at
from benchmarks.torture.trial import Fault, Trial
from tasks.failpoint import PLACES, VARIABLE

_FETCHING = "its source is a service; tests/system/tasks/curate/ingest kills there"
_COPYING = "its files are elsewhere; tests/system/tasks/curate/ingest kills there"
ELSEWHERE = {
    **{place: _FETCHING for place in PLACES if place.startswith("ingest.")},
    **{place: _COPYING for place in PLACES if place.startswith("copies.")},
    **{
        place: "no run forgets; tests/system/flows/commands/test_forget.py kills there"
        for place in PLACES
        if place.startswith("forget.")
    },
    "train.depot.put": "a cluster trains; tests/system/tasks/cluster/test_depot.py kills there",
    "train.rank.reduced": "several training processes; tests/system/tasks/train/test_distributed.py kills one of them",
}
"""Places that the campaign does not come to, and why."""
REACHED = tuple(place for place in PLACES if place not in ELSEWHERE)
_STAGE = {"ledger.tick": "curate", "snapshot": "curate", "train": "finetune", "ledger": "release", "mlflow": "release"}
_OFTEN = {"train.checkpoint.written": 4, "train.checkpoint.renamed": 4}
"""How often a place is reached in its stage, if more than once."""


@contextmanager
def at_failpoint(trial: Trial) -> Iterator[str]:
    """The places in turn; those of the store in a random stage, at a random one of its results."""
    place = REACHED[trial.number % len(REACHED)]
    stage = trial.begin(_STAGE.get(place) or _STAGE.get(place.partition(".")[0]) or "")
    often = trial.homes.stages[stage].n_made if place.startswith("store.") else _OFTEN.get(place, 1)
    aim = f"{place}:{trial.dice.randint(1, often)}"
    trial.tick = "person" if place == "ledger.tick" else None
    ended = trial.run(**{VARIABLE: aim})
    if not ended.code:
        raise RuntimeError(f"{aim} was not reached")
    yield f"killed at {aim}"


@contextmanager
def at_operation(trial: Trial) -> Iterator[str]:
    """At a random file operation of a random stage."""
    number = _any_operation(trial)
    ended = trial.run(kill_at(trial.place, number))
    yield f"killed at operation {number}{_missed(trial, ended.code)}"


@contextmanager
def at_random(trial: Trial) -> Iterator[str]:
    """After a random part of the stage's time."""
    stage = trial.homes.stages[trial.begin()]
    after = trial.dice.uniform(0, stage.seconds)
    child = trial.start()
    time.sleep(after)
    child.kill()
    ended = trial.heard(child.wait())
    yield f"killed after {after:.2f} s{_missed(trial, ended.code)}"


@contextmanager
def again_and_again(trial: Trial) -> Iterator[str]:
    """Three runs in a row are killed before one may finish."""
    numbers = []
    trial.begin()
    for _ in range(3):
        numbers.append(trial.dice.randint(1, trial.homes.stages[trial.stage].n_operations))
        trial.run(kill_at(trial.place, numbers[-1]))
    trial.fired = any(ended.code < 0 for ended in trial.ended)
    yield f"killed at operations {numbers}"


@contextmanager
def of_training(trial: Trial) -> Iterator[str]:
    """The training process alone: the run says so and ends."""
    trial.begin("finetune")
    child, worker = trial.start(), 0
    steps = trial.dice.randint(0, 14)
    while child.is_alive() and not worker:
        progress = next(trial.home.rglob("progress.jsonl"), None)
        if progress is not None and progress.read_text().count("\n") >= steps:
            worker = next(iter(children(child.pid)), 0)
        time.sleep(0.01)
    if worker:
        os.kill(worker, signal.SIGKILL)
    ended = trial.heard(child.wait())
    trial.fired = bool(worker)
    if worker and ended.code == 0:
        raise RuntimeError("the run went on without its training")
    yield f"training killed after {steps} lines of progress: {ended.error or ended.code}"


def children(pid: int) -> list[int]:
    """Processes that the process has started."""
    return [int(each) for task in Path(f"/proc/{pid}/task").glob("*/children") for each in task.read_text().split()]


def _any_operation(trial: Trial) -> int:
    return trial.dice.randint(1, trial.homes.stages[trial.begin()].n_operations)


def _missed(trial: Trial, code: int) -> str:
    trial.missed = code == 0
    return " (it was over before)" if trial.missed else ""


KILLS = (
    Fault(
        "kill at a failpoint", "SIGKILL at each declared place in turn", at_failpoint, len(REACHED), 6 * len(REACHED)
    ),
    Fault("kill at an operation", "SIGKILL at the nth file operation", at_operation, 3, 120),
    Fault("kill at a moment", "SIGKILL after a random time", at_random, 1, 60),
    Fault("kill three times", "SIGKILL of a run and of the two that follow it", again_and_again, 0, 20),
    Fault("kill of the training", "SIGKILL of the training process alone", of_training, 1, 10),
)
