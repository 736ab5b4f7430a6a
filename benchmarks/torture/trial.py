"""One try: a new folder, a run under a fault, the checks, the next run, the comparison; and the table."""

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
from benchmarks.torture.homes import HOME, Homes, broken, differing, environment, missing
from flows.context.request import STAGES
from flows.ledger.ledger import Ledger


@dataclass
class Trial:
    """The context of a fault."""

    homes: Homes
    folder: Path
    """The try's folder; the pipeline's folder is `place`."""
    rng: random.Random
    number: int
    """Number of the try, from 0: a fault with a list of places takes them in turn."""
    stack: ExitStack
    """Cleanup at the end of the try: mounts, processes."""
    acks: list[Ack] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    stage: str = ""
    environ: dict[str, str] = field(default_factory=dict)
    tick: str | None = None
    must_report: bool = False
    """A failing run must end with an error code, not with a traceback."""
    missed: bool = False
    """The run ended before the fault, so the try proves nothing."""
    fired: bool = True
    """Whether the fault happened; not if it was drawn beyond the run's end, or had no effect on it."""
    exempt: bool = False
    """Acknowledged work may be missing, because the fault destroyed it; it must be recomputed."""

    _n_started: int = 0

    @property
    def place(self) -> Path:
        return self.folder / "place"

    @property
    def home(self) -> Path:
        return self.place / HOME

    def begin(self, stage: str = "") -> str:
        """Create the folder as it is before a stage, by default a random one; returns the stage."""
        self.stage = stage or self.rng.choice(STAGES)
        self.homes.copy(self.stage, self.place)
        return self.stage

    def start(self, before: Before | None = None, *, work: Work | None = None, **environ: str) -> Child:
        """Start a run (or other work) without waiting for it; pass its end to `record`."""
        settings = {**environment(self.place), **self.environ, **environ}
        self._n_started += 1
        output = self.folder / f"output-{self._n_started}.txt"
        return fork.start(self.place, output, work or fork.pipeline_run(before, tick=self.tick), environ=settings)

    def record(self, ended: Ended) -> Ended:
        """Keep a run's end and its acknowledgements."""
        self.ended.append(ended)
        self.acks += ended.acks
        return ended

    def run(self, before: Before | None = None, *, work: Work | None = None, **environ: str) -> Ended:
        """Run (or do other work) to the end."""
        return self.record(self.start(before, work=work, **environ).wait())


Provoke = Callable[[Trial], Iterator[str]]
"""Injects the fault, yields a description, and then undoes what would break the next run."""


@dataclass(frozen=True)
class Fault:
    """One row of the table."""

    name: str
    action: str
    """What it does."""
    provoke: Provoke
    quick: int
    """Tries in the quick campaign."""
    full: int
    """Tries in the whole campaign."""
    needs: Callable[[], str]
    """Why it cannot be injected here; empty if it can."""


FAULTS: list[Fault] = []
"""All faults, in the order of their declaration and of the table."""


def fault(
    name: str, action: str, *, quick: int, full: int, needs: Callable[[], str] = lambda: ""
) -> Callable[[Provoke], Provoke]:
    """Declare a function as a fault; see `Fault`."""

    def declare(provoke: Provoke) -> Provoke:
        FAULTS.append(Fault(name, action, provoke, quick, full, needs))
        return provoke

    return declare


@dataclass(frozen=True)
class Tried:
    """How a try ended."""

    fault: str
    number: int
    action: str
    lost: tuple[str, ...]
    wrong: tuple[str, ...]
    stuck: str
    output: str
    seconds: float
    missed: bool = False
    fired: bool = True

    @property
    def is_well(self) -> bool:
        """Nothing lost, nothing wrong, not stuck."""
        return not (self.lost or self.wrong or self.stuck)

    @property
    def is_recovered(self) -> bool:
        """Whether it is well, and there was a fault to recover from."""
        return self.is_well and self.fired


def play(fault: Fault, number: int, *, seed: int, homes: Homes, folder: Path) -> Tried:
    """Try the fault once; the seed and the number determine all random draws."""
    folder.mkdir()
    began = time.monotonic()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        trial = Trial(homes, folder, random.Random(f"{seed}/{fault.name}/{number}"), number, stack)  # noqa: S311
        action, lost, wrong, stuck = "", [], [], ""
        try:
            with contextmanager(fault.provoke)(trial) as action:
                wrong += broken(trial.home)
                lost += [] if trial.exempt else missing(trial.home, trial.acks)
            wrong += [
                f"no error code: exit code {one.code}" for one in trial.ended if trial.must_report and _is_crude(one)
            ]
            stuck = _recover(trial)
            lost += missing(trial.home, [ack for ack in trial.acks if not trial.exempt or ack["kind"] == "end"])
            wrong += differing(trial.home, homes.golden)
            wrong += [f"left in TMPDIR: {path.name}" for path in sorted((folder / "tmp").glob("*"))]
        except Exception as error:
            stuck = stuck or f"{type(error).__name__}: {error}"
            traceback.print_exc()
        stuck = stuck or next((f"run {at} did not end" for at, one in enumerate(trial.ended) if one.is_stuck), "")
        output = "\n".join(one.output[-3000:] for one in trial.ended)
    return Tried(
        fault.name, number, f"{action} ({trial.stage})", tuple(dict.fromkeys(lost)), tuple(dict.fromkeys(wrong)), stuck,
        output, time.monotonic() - began, trial.missed, trial.fired and not trial.missed,
    )  # fmt: skip


def _is_crude(one: Ended) -> bool:
    return one.code > 0 and one.error in ("", "TG0001") and not any(ack["kind"] == "end" for ack in one.acks)


def _recover(trial: Trial) -> str:
    """Run once more, undisturbed, and update MLflow if needed; returns why that failed, or an empty string."""
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
            rows.append([each.name, each.action, *mine.values()])
    names = ("fault", "action", "tries", "lost", "wrong", "stuck", "recovered", "missed", "no fault")
    return table(names, [*rows, ["all", "", *totals(tried).values()]])


def totals(tried: Sequence[Tried]) -> dict[str, int]:
    """Number of tries that lost something, left something wrong, got stuck or recovered; those whose run ended before
    the fault (`missed`); and those without a fault for this or any other reason."""
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
    """What went wrong in a try, and how to repeat it."""
    lines = [f"FAILED {one.fault} #{one.number}: {one.action}"]
    lines += [f"  lost: {each}" for each in one.lost] + [f"  wrong: {each}" for each in one.wrong]
    lines += [f"  stuck: {one.stuck}"] if one.stuck else []
    lines += [f"  | {line}" for line in one.output.splitlines()[-25:]]
    lines.append(f"  repeat: SEED={seed} ONLY={json.dumps(f'{one.fault}#{one.number}')} make torture")
    return "\n".join(lines)
