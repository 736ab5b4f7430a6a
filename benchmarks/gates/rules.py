"""The rules of the league: those of installed packages, called in their own environment, and tunegate's.

`benchmarks/engines/gates.py` calls the packages. Rules on right and wrong answers see only
how many items were gained and lost, so one table per rule and size (the fewest gains that promote, the most that block)
gives its error rates and its power exactly, without simulation. Rules on whole vectors of scores get the same draws.
Knows nothing of what is played (`league.py`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from benchmarks.gates.simulated import ALPHA, champion_rule
from benchmarks.measure import ENGINES, interpreters, isolated, report, run_measured
from schemas.metrics import traits_of
from tasks.assess.contract import BLOCK, HOLD, PROMOTE, settle
from tasks.assess.judge import ChangeTest, judge_change

Counts = NDArray[np.int64]
Codes = NDArray[np.int8]
ERROR = 3
LIMIT_S = 3600.0


@dataclass(frozen=True)
class Rule:
    """One rule of the league."""

    name: str
    claims: str
    """What a promotion says about the candidate."""
    engine: str = ""
    """Function of `engines/gates.py`; empty for tunegate."""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    environment: str = "gates"


OURS = (Rule("tunegate improve", "better"), Rule("tunegate refresh", "not 2 points worse, measured at least 1 better"))
PEERS = (
    Rule("statgate, margin 0.02", "not 2 points worse", "statgate", {"margin": 0.02}),
    Rule("statgate, margin 0", "better", "statgate", {"margin": 0.0}),
    Rule("evalsig, min_delta 0.01", "better, measured at least 1 point", "evalsig", {"min_delta": 0.01}),
    Rule("truescore mcnemar", "better", "truescore"),
    Rule("evalproof", "no significant drop of 2 points", "evalproof"),
    Rule("MLflow, min_absolute_change 0.01", "measured 1 point better", "mlflow",
         {"threshold": {"min_absolute_change": 0.01}}, "project"),
    Rule("Soup ship", "measured better", "soup"),
)  # fmt: skip
RULES = (*OURS, *PEERS)


# Asking the peers


class Requests:
    """Collects tasks for the peers, and has them carried out by one process per environment."""

    def __init__(self) -> None:
        self._tasks: list[tuple[str, dict[str, Any]]] = []
        self._arrays: dict[str, NDArray[Any]] = {}

    def add(self, rule: Rule, do: Literal["table", "verdicts", "stream"], **task: Any) -> int:
        """Add a task; returns its number."""
        self._tasks.append((rule.environment, {"rule": rule.engine, "do": do, **rule.settings, **task}))
        return len(self._tasks) - 1

    def share(self, name: str, array: NDArray[Any]) -> str:
        """Make an array available to tasks under this name."""
        self._arrays[name] = array
        return name

    def answers(self, home: Path, scratch: Path) -> list[dict[str, Any] | None]:
        """The answer to each task, in order; None if its environment is not there or its process failed."""
        pythons, _ = interpreters({environment for environment, _ in self._tasks}, home)
        found: list[dict[str, Any] | None] = [None] * len(self._tasks)
        for environment, python in pythons.items():
            mine = [number for number, (name, _) in enumerate(self._tasks) if name == environment]
            if mine:
                folder = scratch / environment
                folder.mkdir()
                answers = self._ask(environment, python, [self._tasks[number][1] for number in mine], folder)
                for number, answer in zip(mine, answers, strict=False):
                    found[number] = answer
        return found

    def _ask(self, environment: str, python: Path, tasks: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
        request, answer = folder / "request.json", folder / "answer.json"
        request.write_text(json.dumps(tasks))
        np.savez(f"{request}.npz", **self._arrays)  # type: ignore[arg-type]
        cost = run_measured(
            [python, ENGINES / "gates.py", request, answer], limit_s=LIMIT_S, folder=folder, scratch=folder,
            environment=isolated(folder, own=False, OMP_NUM_THREADS="1"), every_s=0.5,
        )  # fmt: skip
        if not cost.complete:
            report(f"{environment}: {cost.failure}")
            return []
        report(f"peers in {environment}: {cost.cpu_s:.0f} CPU seconds")
        found: list[dict[str, Any]] = json.loads(answer.read_text())
        return found


# A rule on right and wrong answers as a table, and what follows from it


@dataclass(frozen=True)
class Table:
    """A rule at one number of items, for `first`, `first` + 1, ... items that one of the two models gets right."""

    n: int
    first: int
    promoted: Counts
    """Fewest gains that promote."""
    blocked: Counts
    """Most gains that block; -1 for none."""

    def codes(self, gained: Counts, lost: Counts) -> Codes:
        """Verdicts. Beyond the table's ends a limit moves by half an item per item, as it does inside."""
        differing = gained + lost
        place = np.clip(differing - self.first, 0, len(self.promoted) - 1)
        beyond = (differing - self.first - place) / 2
        promoted = gained >= self.promoted[place] + beyond
        blocked = gained <= self.blocked[place] + beyond
        return np.where(promoted, PROMOTE, np.where(blocked, BLOCK, HOLD)).astype(np.int8)

    def shares(self, discordance: float, delta: float) -> tuple[float, float]:
        """Exact probabilities of promoting and of blocking a candidate that is truly better by `delta`."""
        differing = np.arange(self.first, self.first + len(self.promoted))
        chance = binom.pmf(differing, self.n, discordance)
        share = (discordance + delta) / (2 * discordance)
        promote = chance * binom.sf(self.promoted - 1, differing, share)
        block = chance * binom.cdf(np.minimum(self.blocked, self.promoted - 1), differing, share)
        return float(promote.sum()), float(block.sum())


def differing_range(n: int, discordances: Sequence[float], *, spread: float = 4.5) -> tuple[int, int]:
    """The numbers of differing items that matter at these discordances."""
    ends = [(n * d, spread * (n * d * (1 - d)) ** 0.5 + 1) for d in discordances]
    return max(0, int(min(mean - width for mean, width in ends))), min(n, int(max(m + w for m, w in ends)) + 1)


def our_codes(rule: Rule, gained: Counts, lost: Counts, n: int) -> Codes:
    """tunegate's verdict by its one rule."""
    outcome = champion_rule(gained, lost, n, mode=rule.name.split()[-1])
    return settle(outcome.met[..., None], outcome.p_harm[..., None], alpha=ALPHA)[..., 0]


def our_table(rule: Rule, n: int, first: int, last: int) -> Table:
    """The same as a table."""
    differing = np.arange(first, last + 1)[:, None]
    gained = np.arange(last + 1)[None, :]
    codes = our_codes(rule, np.minimum(gained, differing), np.maximum(differing - gained, 0), n)
    inside = gained <= differing
    promoted = np.where(inside & (codes == PROMOTE), gained, differing + 1).min(axis=1)
    blocked = np.where(inside & (codes == BLOCK), gained, -1).max(axis=1)
    return Table(n, first, promoted, blocked)


class Tables:
    """The tables of all rules at these sizes: requested first, read when the peers have answered."""

    def __init__(self, requests: Requests, sizes: Mapping[int, tuple[int, int]], *, resamples: int) -> None:
        self._sizes = sizes
        self._numbers = {
            (rule.name, n): requests.add(rule, "table", n=n, first=first, last=last, resamples=resamples)
            for rule in PEERS
            for n, (first, last) in sizes.items()
        }

    def read(self, answers: Sequence[dict[str, Any] | None]) -> dict[tuple[str, int], Table]:
        """(rule, items) -> table, without the rules that did not answer."""
        found = {
            (rule.name, n): our_table(rule, n, first, last) for rule in OURS for n, (first, last) in self._sizes.items()
        }
        for (name, n), number in self._numbers.items():
            if answer := answers[number]:
                limits = (np.array(answer[part], np.int64) for part in ("promoted", "blocked"))
                found[name, n] = Table(n, answer["first"], *limits)
        return found


def items_for_power(powers: Mapping[int, float], power: float = 0.8) -> int | None:
    """Items at which a rule reaches the power, from its power at some sizes; None beyond the largest.

    The normal quantile of the power is nearly a straight line in the square root of the number of items, so that is
    what is interpolated.
    """
    sizes = sorted(powers)
    z = [float(norm.ppf(min(max(powers[n], 1e-9), 1 - 1e-9))) for n in sizes]
    wanted = float(norm.ppf(power))
    for place in range(1, len(sizes)):
        if z[place - 1] < wanted <= z[place]:
            low, high = sizes[place - 1] ** 0.5, sizes[place] ** 0.5
            return round(float(low + (wanted - z[place - 1]) / (z[place] - z[place - 1]) * (high - low)) ** 2)
    return sizes[0] if z and bool(z[0] >= wanted) else None


# Whole vectors of scores


def our_verdict(
    candidate: NDArray[np.float64], champion: NDArray[np.float64], *, groups: NDArray[np.int64] | None = None,
    continuous: bool = False,
) -> int:  # fmt: skip
    """tunegate's `improve` on one pair, by the code that judges a real one."""
    traits = traits_of("exact").model_copy(update={"continuous": continuous})
    judged = judge_change(candidate, champion, ChangeTest(traits, 1 - ALPHA, "champion"), clusters=groups)
    return {"PROMOTE": PROMOTE, "HOLD": HOLD, "BLOCK": BLOCK}[judged.verdict]


@dataclass(frozen=True)
class Trial:
    """One set of draws that every rule judges."""

    name: str
    candidate: NDArray[np.float64]
    """Shape (rows, items), as the champion's."""
    champion: NDArray[np.float64]
    groups: NDArray[np.int64] | None = None
    """Customer of each item."""
    slices: NDArray[np.int64] | None = None
    continuous: bool = False


class Judged:
    """The verdicts on one trial: requested first, read when the peers have answered."""

    def __init__(self, requests: Requests, trial: Trial, rules: Sequence[Rule], *, resamples: int) -> None:
        self.trial = trial
        shared: dict[str, Any] = {
            part: requests.share(f"{trial.name} {part}", getattr(trial, part)) for part in ("candidate", "champion")
        }
        if (groups := trial.slices if trial.groups is None else trial.groups) is not None:
            shared |= {"groups": requests.share(f"{trial.name} groups", groups), "slices": trial.slices is not None}
        self._numbers = {
            rule.name: requests.add(rule, "verdicts", continuous=trial.continuous, resamples=resamples, **shared)
            for rule in rules
        }

    def read(self, answers: Sequence[dict[str, Any] | None]) -> dict[str, Codes]:
        """Rule -> verdicts on the rows; tunegate's `improve` too, unless the trial is of slices."""
        found = {
            name: np.array(answer["verdicts"], np.int8)
            for name, number in self._numbers.items()
            if (answer := answers[number])
        }
        trial = self.trial
        if trial.slices is None:
            rows = zip(trial.candidate, trial.champion, strict=True)
            codes = [our_verdict(*row, groups=trial.groups, continuous=trial.continuous) for row in rows]
            found[OURS[0].name] = np.array(codes, np.int8)
        return found


# Rules that look while answers come in


STREAMERS = (
    Rule("statgate, sequential, margin 0.02", "not 2 points worse", "statgate", {"margin": 0.02}),
    Rule("evalsig sequential_gate", "better", "evalsig"),
    Rule("truescore confidence sequence", "better", "truescore"),
)
