"""One try: a folder of its own, a run under a fault, what is left, the next run, the comparison; and the table."""

from __future__ import annotations

import json
import random
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import table
from benchmarks.torture import fork
from benchmarks.torture.fork import Ack, Before, Child, Ended, Work
from benchmarks.torture.homes import HOME, Homes, differing, environment, missing, standing
from flows.build import STAGES
from flows.ledger.ledger import Ledger


@dataclass
class Trial:
    """What a fault gets to work with."""

    homes: Homes
    folder: Path
    """Of this try; the pipeline's folder is `place`."""
    dice: random.Random
    number: int
    """Of the try, from 0: a fault with a list of places takes them in turn."""
    stack: ExitStack
    """What has to be undone when the try is over: mounts, processes."""
    acks: list[Ack] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    stage: str = ""
    environ: dict[str, str] = field(default_factory=dict)
    tick: str | None = None
    has_to_say: bool = False
    """A run that fails has to end with an error that has a code, not with a traceback."""
    missed: bool = False
    """The run was over before the fault came; the try says nothing about it."""
    fired: bool = True
    """Was there a fault at all? One that was drawn beyond the end of the run, or that a run did not feel, was none."""
    exempt: bool = False
    """What was acknowledged may be gone, because the fault destroyed it; it must be made again."""

    _n_started: int = 0

    @property
    def place(self) -> Path:
        return self.folder / "place"

    @property
    def home(self) -> Path:
        return self.place / HOME

    def begin(self, stage: str = "") -> str:
        """Lay out the folder as it is before the stage, a random one by default; returns it."""
        self.stage = stage or self.dice.choice(STAGES)
        self.homes.copy(self.stage, self.place)
        return self.stage

    def start(self, before: Before | None = None, *, work: Work | None = None, **environ: str) -> Child:
        """Start a run (or other work) without waiting for it; `heard` takes its end."""
        settings = {**environment(self.place), **self.environ, **environ}
        self._n_started += 1
        said = self.folder / f"said-{self._n_started}.txt"
        return fork.start(self.place, said, work or fork.pipeline_run(before, tick=self.tick), environ=settings)

    def heard(self, ended: Ended) -> Ended:
        """Keep what a run has acknowledged."""
        self.ended.append(ended)
        self.acks += ended.acks
        return ended

    def run(self, before: Before | None = None, *, work: Work | None = None, **environ: str) -> Ended:
        """A run (or other work) to its end."""
        return self.heard(self.start(before, work=work, **environ).wait())


Provoke = Callable[[Trial], Iterator[str]]
"""Does harm, yields in words what it did, and then takes back what would keep the next run from working."""


@dataclass(frozen=True)
class Fault:
    """One row of the table."""

    name: str
    done: str
    """What is done."""
    provoke: Provoke
    quick: int
    """Tries of the quick campaign."""
    full: int
    """Tries of the whole one."""
    needs: Callable[[], str]
    """Why it cannot be provoked here; empty when it can."""


FAULTS: list[Fault] = []
"""In the order of the table, which is the order in which they are declared."""


def fault(
    name: str, done: str, *, quick: int, full: int, needs: Callable[[], str] = lambda: ""
) -> Callable[[Provoke], Provoke]:
    """Declare a function to be a fault; see `Fault`."""

    def declare(provoke: Provoke) -> Provoke:
        FAULTS.append(Fault(name, done, provoke, quick, full, needs))
        return provoke

    return declare


@dataclass(frozen=True)
class Tried:
    """How a try ended."""

    fault: str
    number: int
    done: str
    lost: tuple[str, ...]
    wrong: tuple[str, ...]
    stuck: str
    said: str
    seconds: float
    missed: bool = False
    fired: bool = True

    @property
    def is_well(self) -> bool:
        """Nothing lost, nothing wrong, not stuck."""
        return not (self.lost or self.wrong or self.stuck)

    @property
    def is_recovered(self) -> bool:
        """And there was a fault to recover from."""
        return self.is_well and self.fired


def play(fault: Fault, number: int, *, seed: int, homes: Homes, folder: Path) -> Tried:
    """Try the fault once; the seed and the number decide all that is drawn by lot."""
    folder.mkdir()
    began = time.monotonic()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        trial = Trial(homes, folder, random.Random(f"{seed}/{fault.name}/{number}"), number, stack)  # noqa: S311
        done, lost, wrong, stuck = "", [], [], ""
        try:
            with contextmanager(fault.provoke)(trial) as done:
                wrong += standing(trial.home)
                lost += [] if trial.exempt else missing(trial.home, trial.acks)
            wrong += [
                f"no word of it: exit code {one.code}" for one in trial.ended if trial.has_to_say and _is_crude(one)
            ]
            stuck = _recover(trial)
            lost += missing(trial.home, [ack for ack in trial.acks if not trial.exempt or ack["kind"] == "end"])
            wrong += differing(trial.home, homes.golden)
            wrong += [f"left in TMPDIR: {path.name}" for path in sorted((folder / "tmp").glob("*"))]
        except Exception as error:
            stuck = stuck or f"{type(error).__name__}: {error}"
            traceback.print_exc()
        stuck = stuck or next((f"run {at} did not end" for at, one in enumerate(trial.ended) if one.is_stuck), "")
        said = "\n".join(one.said[-3000:] for one in trial.ended)
    return Tried(
        fault.name, number, f"{done} ({trial.stage})", tuple(dict.fromkeys(lost)), tuple(dict.fromkeys(wrong)), stuck,
        said, time.monotonic() - began, trial.missed, trial.fired and not trial.missed,
    )  # fmt: skip


def _is_crude(one: Ended) -> bool:
    return one.code > 0 and one.error in ("", "TG0001") and not any(ack["kind"] == "end" for ack in one.acks)


def _recover(trial: Trial) -> str:
    """Run once more, undisturbed, and bring MLflow up to date where it is not; returns why that did not work."""
    ended = trial.run()
    if ended.code:
        return f"the next run ended with {ended.code} {ended.error}"
    if Ledger(trial.home).pending_projections() and (late := trial.run(work=fork.reconciliation)).code:
        return f"reconcile ended with {late.code}"
    return ""


def as_table(faults: Sequence[Fault], tried: Sequence[Tried], skipped: Mapping[str, str]) -> str:
    """A row per fault."""
    rows: list[list[object]] = []
    for each in faults:
        mine = totals([one for one in tried if one.fault == each.name])
        if each.name in skipped:
            rows.append([each.name, f"skipped: {skipped[each.name]}", 0])
        elif mine["tries"]:
            rows.append([each.name, each.done, *mine.values()])
    names = ("fault", "what is done", "tries", "lost", "wrong", "stuck", "recovered", "missed", "no fault")
    return table(names, [*rows, ["all", "", *totals(tried).values()]])


def totals(tried: Sequence[Tried]) -> dict[str, int]:
    """How many tries lost something, left something wrong, could not be finished, recovered from a fault; in how many
    the run was over before the fault came (`missed`), and in how many there was none for this or any other reason."""
    return {
        "tries": len(tried),
        "lost": sum(bool(one.lost) for one in tried),
        "wrong": sum(bool(one.wrong) for one in tried),
        "stuck": sum(bool(one.stuck) for one in tried),
        "recovered": sum(one.is_recovered for one in tried),
        "missed": sum(one.missed for one in tried),
        "no_fault": sum(not one.fired for one in tried),
    }


def again(one: Tried, *, seed: int) -> str:
    """What went wrong in a try, and how to play it once more."""
    lines = [f"FAILED {one.fault} #{one.number}: {one.done}"]
    lines += [f"  lost: {each}" for each in one.lost] + [f"  wrong: {each}" for each in one.wrong]
    lines += [f"  stuck: {one.stuck}"] if one.stuck else []
    lines += [f"  | {line}" for line in one.said.splitlines()[-25:]]
    lines.append(f"  again: SEED={seed} ONLY={json.dumps(f'{one.fault}#{one.number}')} make torture")
    return "\n".join(lines)
