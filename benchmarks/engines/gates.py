"""The rules of `bench-gates`' league, each called as its package's users call it: paired scores in, a verdict out.

Run as `python gates.py REQUEST ANSWER`, two JSON files; arrays of the request are in `REQUEST.npz`. It runs in an
environment that lacks the application; `mlflow` runs in ours. A request is a list of tasks:

- `table`: for every number of differing items the fewest gains with which the rule promotes, and the most with which
  it blocks. Found by bisection with the rule's own verdicts, each on whole vectors of scores.
- `verdicts`: the verdict on each row of two matrices of scores, shape (rows, items), with customers or slices if given.
- `stream`: where a rule that looks after every batch stops, and its verdict there.

Verdicts: 0 promote, 1 neither, 2 block, 3 no verdict (the package raises an error).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

PROMOTE, HOLD, BLOCK, ERROR = 0, 1, 2, 3
Verdict = Callable[..., int]
"""Candidate's and champion's scores, and perhaps `groups` (customers or slices of the items) -> verdict."""
RESAMPLES = 10_000
"""Default of statgate, evalsig and truescore; a task may ask for fewer."""


@cache
def names(n: int) -> list[str]:
    """Ids in the order of the items."""
    return [f"i{number:06d}" for number in range(n)]


def statgate(task: dict[str, Any]) -> Verdict:
    """`evaluate_gate`: SHIP if the BCa interval lies above -margin, BLOCK if below."""
    from statgate import EvalRecord, GateSettings, evaluate_gate

    # The p-value takes no part in the verdict, so as few permutations as allowed.
    settings = GateSettings(
        margin=task["margin"], alpha=task.get("alpha", 0.05), seed=0, permutations=100,
        resamples=task.get("resamples", RESAMPLES),
    )  # fmt: skip
    codes = {"SHIP": PROMOTE, "INCONCLUSIVE": HOLD, "BLOCK": BLOCK}
    known: dict[tuple[str, float], EvalRecord] = {}  # frozen, so that a vector's records serve the next one too

    def record(name: str, score: float) -> EvalRecord:
        if (name, score) not in known:
            known[name, score] = EvalRecord(case_id=name, score=score)
        return known[name, score]

    def verdict(candidate: Any, champion: Any, _groups: Any = None) -> int:
        ids = names(len(candidate))
        runs = [
            [record(name, score) for name, score in zip(ids, run.tolist(), strict=True)]
            for run in (champion, candidate)
        ]
        return codes[evaluate_gate(*runs, settings).verdict.value]

    return verdict


def evalsig(task: dict[str, Any]) -> Verdict:
    """`gate`: ALLOW if significantly better by at least `min_delta`, INCONCLUSIVE if too small, else REJECT."""
    from evalsig import ItemResult, RunFrame, gate

    codes = {"ALLOW": PROMOTE, "INCONCLUSIVE": HOLD, "REJECT": BLOCK}

    def verdict(candidate: Any, champion: Any, groups: Any = None) -> int:
        ids = names(len(candidate))
        owners = [None] * len(ids) if groups is None else [str(each) for each in groups]
        frames = [
            RunFrame(name, name, "tickets", "exact",
                     [ItemResult(item, float(score), owner)
                      for item, score, owner in zip(ids, run, owners, strict=True)])
            for name, run in (("champion", champion), ("candidate", candidate))
        ]  # fmt: skip
        found = gate(
            *frames, min_delta=task["min_delta"], cluster=None if groups is None else "customer",
            n_resamples=task.get("resamples", RESAMPLES),
        )  # fmt: skip
        return codes[found.verdict.value]

    return verdict


def truescore(task: dict[str, Any]) -> Verdict:
    """The tests of `truescore compare`, read as a gate: a significant difference promotes or blocks by its sign.

    With `slices`, a slice that `compare_slices` flags as worse blocks. It wants examples that no person labelled, so
    two of each slice stay without.
    """
    from truescore import compare_slices, mcnemar, paired_bootstrap

    def verdict(candidate: Any, champion: Any, groups: Any = None) -> int:
        draws = task.get("resamples", RESAMPLES)
        if task.get("continuous"):
            found = paired_bootstrap(candidate, champion, n_bootstrap=draws)
        elif groups is not None and not task.get("slices"):
            found = paired_bootstrap(candidate, champion, n_bootstrap=draws, clusters=groups)
        else:
            found = mcnemar(candidate.astype(int), champion.astype(int))
        if task.get("slices"):
            labelled = np.concatenate([np.flatnonzero(groups == each)[:-2] for each in np.unique(groups)])
            report = compare_slices(candidate, champion, candidate[labelled], champion[labelled], labelled, groups)
            if any(each.significant and each.difference < 0 for each in report.comparisons):
                return BLOCK
        if not found.significant:
            return HOLD
        return PROMOTE if found.difference > 0 else BLOCK

    return verdict


def evalproof(task: dict[str, Any]) -> Verdict:
    """`decide`: fails a drop that is significant and larger than `max_drop`; everything else passes."""
    from evalproof.compare import compare_runs
    from evalproof.config import GateConfig
    from evalproof.gate import EXIT_REGRESSION, decide
    from evalproof.models import CaseResult, Run, RunInfo, Score, SystemOutput

    info = RunInfo(
        suite="s", system="m", dataset_path="d", dataset_hash="h", started_at="", finished_at="", wall_time_s=0.0,
        evalproof_version="0", seed=0,
    )  # fmt: skip
    output, config = SystemOutput(output=""), GateConfig(metric="exact")
    # The interval takes no part in the verdict on right and wrong answers (exact McNemar), so few draws there.
    draws = config.n_boot if task.get("continuous") else 10
    rights = {passed: {"exact": Score(value=float(passed), passed=passed)} for passed in (True, False)}
    cases: dict[Any, CaseResult] = {}

    def case(name: str, score: float) -> CaseResult:
        if task.get("continuous"):
            return CaseResult(case_id=name, output=output, scores={"exact": Score(value=float(score))})
        key = (name, bool(score))
        if key not in cases:
            cases[key] = CaseResult(case_id=name, output=output, scores=rights[bool(score)])
        return cases[key]

    def verdict(candidate: Any, champion: Any, _groups: Any = None) -> int:
        ids = names(len(candidate))
        runs = [
            Run.model_construct(info=info, results=[case(name, score) for name, score in zip(ids, run, strict=True)])
            for run in (champion, candidate)
        ]
        found = decide(compare_runs(*runs, n_boot=draws), config)
        if found.status in ("pass", "warn"):
            return PROMOTE
        return BLOCK if found.exit_code == EXIT_REGRESSION else HOLD

    return verdict


def mlflow(task: dict[str, Any]) -> Verdict:
    """`mlflow.validate_evaluation_results` with a `MetricThreshold`."""
    import mlflow
    from mlflow.models import MetricThreshold
    from mlflow.models.evaluation import EvaluationResult
    from mlflow.models.evaluation.validation import ModelValidationFailedException

    logging.getLogger("mlflow").setLevel(logging.ERROR)  # else two lines per verdict
    thresholds = {"exact": MetricThreshold(greater_is_better=True, **task["threshold"])}

    def verdict(candidate: Any, champion: Any, _groups: Any = None) -> int:
        results = [
            EvaluationResult(metrics={"exact": float(run.mean())}, artifacts={}) for run in (candidate, champion)
        ]
        try:
            mlflow.validate_evaluation_results(thresholds, *results)
        except ModelValidationFailedException:
            return BLOCK
        return PROMOTE

    return verdict


def soup(_task: dict[str, Any]) -> Verdict:
    """`decide_ship`: SHIP if `task_tuned > task_base` and no general benchmark drops; here one that does not move."""
    from soup_cli.utils.ship_verdict import BenchmarkDelta, build_task_win, decide_ship

    general = [BenchmarkDelta("general", 0.5, 0.5, 0.0, regressed=False)]

    def verdict(candidate: Any, champion: Any, _groups: Any = None) -> int:
        win = build_task_win("metric", float(champion.mean()), float(candidate.mean()))
        return PROMOTE if decide_ship(win, general).decision == "SHIP" else BLOCK

    return verdict


RULES: dict[str, Callable[[dict[str, Any]], Verdict]] = {
    "statgate": statgate,
    "evalsig": evalsig,
    "truescore": truescore,
    "evalproof": evalproof,
    "mlflow": mlflow,
    "soup": soup,
}


def table(task: dict[str, Any]) -> dict[str, Any]:
    """For each number of differing items from `first` to `last`: fewest gains to promote, most to block."""
    rule, n = RULES[task["rule"]](task), task["n"]
    right = round(0.8 * n)
    known: dict[tuple[int, int], int] = {}

    def verdict(gained: int, lost: int) -> int:
        if (gained, lost) not in known:
            both = max(0, min(right - lost, n - gained - lost))
            champion, candidate = np.zeros(n), np.zeros(n)
            candidate[:gained] = 1.0
            champion[gained : gained + lost] = 1.0
            champion[gained + lost : gained + lost + both] = candidate[gained + lost : gained + lost + both] = 1.0
            known[gained, lost] = _safely(rule, candidate, champion)
        return known[gained, lost]

    promoted, blocked = [], []
    fewest, most = 0, -1
    for differing in range(task["first"], task["last"] + 1):
        # Both limits move by at most a few items from one number to the next, so start at the last one.
        fewest = min(fewest, differing + 1)
        while fewest > 0 and verdict(fewest - 1, differing - fewest + 1) == PROMOTE:
            fewest -= 1
        while fewest <= differing and verdict(fewest, differing - fewest) != PROMOTE:
            fewest += 1
        most = min(most, differing)
        while most < differing and verdict(most + 1, differing - most - 1) == BLOCK:
            most += 1
        while most >= 0 and verdict(most, differing - most) != BLOCK:
            most -= 1
        promoted.append(fewest)
        blocked.append(most)
    return {"first": task["first"], "promoted": promoted, "blocked": blocked, "calls": len(known)}


def verdicts(task: dict[str, Any], arrays: Any) -> dict[str, Any]:
    """The verdict on each row."""
    rule = RULES[task["rule"]](task)
    groups = arrays[task["groups"]] if task.get("groups") else None
    rows = zip(arrays[task["candidate"]], arrays[task["champion"]], strict=True)
    return {"verdicts": [_safely(rule, candidate, champion, groups) for candidate, champion in rows]}


def stream(task: dict[str, Any], arrays: Any) -> dict[str, Any]:
    """Verdict and number of answered items of a rule that looks while answers come in."""
    follow = {"statgate": _statgate_stream, "evalsig": _evalsig_stream, "truescore": _truescore_stream}[task["rule"]]
    found = [follow(row, task) for row in arrays[task["differences"]].astype(float)]
    return {"verdicts": [code for code, _ in found], "items": [used for _, used in found]}


def _statgate_stream(differences: Any, task: dict[str, Any]) -> tuple[int, int]:
    from statgate import EvalRecord, GateSettings, SequentialSettings
    from statgate.sequential_runner import run_replay

    runs = [
        [EvalRecord(case_id=name, score=float(score))
         for name, score in zip(names(len(differences)), scores, strict=True)]
        for scores in (np.maximum(-differences, 0), np.maximum(differences, 0))
    ]  # fmt: skip
    found = run_replay(
        *runs, GateSettings(margin=task["margin"], seed=0), SequentialSettings(max_cases=len(differences))
    )
    return {"SHIP": PROMOTE, "INCONCLUSIVE": HOLD, "BLOCK": BLOCK}[found.verdict.value], found.pairs_used


def _evalsig_stream(differences: Any, _task: dict[str, Any]) -> tuple[int, int]:
    from evalsig import sequential_gate

    found = sequential_gate(differences, alternative="greater")
    # `stopped` is also true if the last item leaves the interval below 0, so its lower end decides.
    return (PROMOTE if found.ci[0] > 0 else HOLD), found.n_pairs


def _truescore_stream(differences: Any, _task: dict[str, Any]) -> tuple[int, int]:
    from truescore.sequential import first_exclusion

    stops = {
        code: first_exclusion(differences, 0.0, direction=direction, bounds=(-1.0, 1.0))
        for code, direction in ((PROMOTE, "above"), (BLOCK, "below"))
    }
    reached = [(where, code) for code, where in stops.items() if where is not None]
    return (min(reached)[1], min(reached)[0]) if reached else (HOLD, len(differences))


def _safely(rule: Verdict, *scores: Any) -> int:
    try:
        return rule(*scores)
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return ERROR


def main(request: Path, answer: Path) -> None:
    """Carry out all tasks of the request that name a rule of this environment."""
    tasks = json.loads(request.read_text())
    arrays = np.load(f"{request}.npz")
    answers = []
    for task in tasks:
        do = task["do"]
        answers.append(table(task) if do == "table" else {"verdicts": verdicts, "stream": stream}[do](task, arrays))
    answer.write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
