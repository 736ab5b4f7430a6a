"""Generation for an evaluation: compare our decoder with transformers' `generate`, in batches and item by item."""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import report, table
from benchmarks.train.trainers import Place
from benchmarks.train.workload import WORKLOADS, write_prompts
from schemas.artifacts import ModelRef

CASES = {"routing": 16, "replies": 48}
"""Workload -> maximum number of new tokens."""
WAYS = {
    "tunegate": "tunegate, batches of {batch}",
    "tunegate-scored": "tunegate, batches of {batch}, with the loss of each reference",
    "batch": "`generate`, batches of {batch}",
    "batch-tuned": "`generate`, batches of {batch}, sleeping threads, freed memory kept",
    "single": "`generate`, item by item",
}
"""All run as users run them, in the existing environment; `batch-tuned` with sleeping threads and an allocator that
keeps freed memory, which needs the least CPU for `generate`."""
LEGEND = "CPU seconds of all threads per item; medians over the rounds. Peak: resident memory of the process tree."


@dataclass(frozen=True)
class AnswersSize:
    """How much to answer."""

    cases: tuple[str, ...]
    n_items: int
    batch: int
    rounds: int
    n_single: int
    """Number of items that `generate` answers one by one, and that both answer in float32; 0 leaves that way out."""
    whole: bool = True
    """Also scored answers, a tuned `generate` and the comparison in float32, which no headline figure needs."""


@dataclass(frozen=True)
class Answers:
    """One way on one case; seconds are per item."""

    case: str
    way: str
    n_items: int
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_mb: float = 0.0
    tokens: tuple[tuple[int, ...], ...] = ()
    failure: str = ""
    """Why there are no figures."""


def run_answers(model: ModelRef, folder: Path, size: AnswersSize, place: Place) -> tuple[list[Answers], dict[str, Any]]:
    """Run every way on every case, interleaved; returns medians over the rounds, and how far the answers agree."""
    ways = [way for way in WAYS if size.whole or way not in ("tunegate-scored", "batch-tuned")]
    if not size.n_single:
        ways.remove("single")
    folder.mkdir()
    (folder / "model.json").write_text(model.model_dump_json())
    found: dict[tuple[str, str], list[Answers]] = defaultdict(list)
    for case in size.cases:
        write_prompts(WORKLOADS[case], folder / f"prompts-{case}", n_items=size.n_items)
    for number in range(size.rounds):
        for case in size.cases:
            for way in ways[number % 2 :] + ways[: number % 2]:
                if number and way == "single":
                    continue  # the slowest way, and the furthest from its bar
                found[case, way].append(_run(folder, case, way, size, place))
    results = [_middle(runs) for runs in found.values()]
    return results, _figures(results) | (_float32(folder, size, place) if size.whole else {})


def _float32(folder: Path, size: AnswersSize, place: Place) -> dict[str, Any]:
    """Whether the answers in float32 equal those of `generate`, one by one."""
    few, wide = replace(size, n_items=size.n_single), replace(place, dtype="float32")
    ours, single = (_run(folder, "replies", way, few, wide) for way in ("tunegate", "single"))
    equal = None if ours.failure or single.failure else ours.tokens == single.tokens
    return {"equal_float32": equal, "items_float32": size.n_single}


def _run(folder: Path, case: str, way: str, size: AnswersSize, place: Place) -> Answers:
    answer = place.scratch / "answers.json"
    answer.unlink(missing_ok=True)
    count = size.n_single if way == "single" else size.n_items
    cost = place.run(
        sys.executable, "train_answers.py", way.removesuffix("-tuned"), place.dtype, folder / "model.json",
        folder / f"prompts-{case}", answer, str(CASES[case]), str(count), str(size.batch), tuned=way.endswith("-tuned"),
    )  # fmt: skip
    report(f"{case} {way} {place.dtype}: {cost.failure or f'{cost.cpu_s:.1f} s CPU in total'}")
    if not cost.complete:
        return Answers(case, way, count, failure=cost.failure)
    got = json.loads(answer.read_text())
    tokens = tuple(tuple(row) for row in got["tokens"])
    return Answers(case, way, count, got["cpu_s"] / count, got["wall_s"] / count, cost.peak_mb, tokens)


def _middle(runs: Sequence[Answers]) -> Answers:
    if failed := next((run for run in runs if run.failure), None):
        return failed
    middle = {name: median(getattr(run, name) for run in runs) for name in ("cpu_s", "wall_s", "peak_mb")}
    return replace(runs[0], **middle)


def _figures(results: Sequence[Answers]) -> dict[str, Any]:
    """Ratios of CPU seconds per item, `_wall` of wall seconds; `agree`: share of items with equal tokens.

    None if a way has no figure; `failures` says why.
    """
    by = {(one.case, one.way): one for one in results}
    failures = {f"{one.case} {one.way}": one.failure for one in results if one.failure}
    figures: dict[str, Any] = {}

    def ratio(name: str, case: str, way: str, of: str = "cpu_s") -> None:
        ours, other = by[case, "tunegate"], by.get((case, way))
        if other is not None:
            failed = ours.failure or other.failure
            figures[f"{name}_{CASES[case]}"] = None if failed else getattr(other, of) / getattr(ours, of)

    def agree(name: str, case: str, one: str, other: str) -> None:
        if not {(case, one), (case, other)} <= by.keys():
            return
        failed = by[case, one].failure or by[case, other].failure
        figures[f"{name}_{CASES[case]}"] = None if failed else agreement(by[case, one].tokens, by[case, other].tokens)

    for case in dict.fromkeys(one.case for one in results):
        ratio("ratio_generate", case, "batch")
        ratio("ratio_generate_wall", case, "batch", "wall_s")
        ratio("ratio_generate_tuned", case, "batch-tuned")
        ratio("ratio_generate_single", case, "single")
        agree("agree_batch", case, "tunegate", "batch")
        agree("agree_single", case, "tunegate", "single")
        agree("agree_batch_single", case, "batch", "single")
    for name in ("ratio_generate", "ratio_generate_wall", "ratio_generate_single"):
        found = [figures[f"{name}_{n_new}"] for n_new in CASES.values() if f"{name}_{n_new}" in figures]
        figures[name] = None if None in found or not found else min(found)
    return figures | {"failures": failures}


def agreement(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> float:
    """Share of the common items with equal tokens.

    >>> agreement([[1, 2], [3]], [[1, 2], [4], [5]])
    0.5
    """
    pairs = list(zip(one, other, strict=False))
    return sum(tuple(a) == tuple(b) for a, b in pairs) / len(pairs)


def answers_table(answers: Sequence[Answers], batch: int) -> str:
    """One row per way and case."""
    rows: list[list[object]] = []
    for one in answers:
        figures = [
            sum(map(len, one.tokens)), f"{one.cpu_s:.3f}", f"{one.wall_s:.3f}", f"{one.peak_mb:,.0f}"
        ]  # fmt: skip
        rows.append(
            [one.case, WAYS[one.way].format(batch=batch), one.n_items, *([one.failure] if one.failure else figures)]
        )
    return table(["prompts", "way", "items", "new tokens", "CPU s per item", "s per item", "peak MB"], rows)
