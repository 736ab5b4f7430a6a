"""Generation for an evaluation: our decoder beside transformers' `generate` in batches and item by item.

Called by `benchmarks/train/__main__.py`.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.train.runs import run_script, told
from benchmarks.train.workload import WORKLOADS, write_prompts
from schemas.artifacts import ModelRef

CASES = {"routing": 16, "replies": 48}
"""Workload -> new tokens at most."""
MODES = ("tunegate", "tunegate-scored", "batch", "batch-tuned", "single")
"""All run as their users run them, in the environment that is there; `batch-tuned` with waiting threads that sleep and
an allocator that keeps what is freed, which costs `generate` least CPU."""


@dataclass(frozen=True)
class AnswersSize:
    """How much is answered."""

    cases: tuple[str, ...]
    n_items: int
    batch: int
    rounds: int
    n_single: int
    """Items that `generate` answers one by one, and both in float32."""
    whole: bool = True
    """With our answers scored, a tuned `generate` and the comparison in float32, which no asked ratio needs."""


@dataclass(frozen=True)
class Answers:
    """One way on one case; seconds are of one item."""

    case: str
    mode: str
    n_items: int
    cpu_s: float
    wall_s: float
    n_new: int
    peak_mb: float
    tokens: tuple[tuple[int, ...], ...]


def run_answers(
    model: ModelRef, home: Path, scratch: Path, size: AnswersSize, *, threads: int
) -> tuple[list[Answers], dict[str, Any]]:
    """Every way on every case, interleaved; medians over the rounds, and how far the answers agree."""
    modes = MODES if size.whole else tuple(mode for mode in MODES if mode not in ("tunegate-scored", "batch-tuned"))
    (home / "model.json").write_text(model.model_dump_json())
    found: dict[tuple[str, str], list[Answers]] = defaultdict(list)
    for case in size.cases:
        write_prompts(WORKLOADS[case], home / f"prompts-{case}", n_items=size.n_items)
    for number in range(size.rounds):
        for case in size.cases:
            for mode in modes[number % 2 :] + modes[: number % 2]:
                if number and mode == "single":
                    continue  # the slowest, and the furthest from its bar
                found[case, mode].append(_run(home, scratch, case, mode, size, threads))
    results = [_middle(runs) for runs in found.values()]
    return results, _figures(results) | (_float32(home, scratch, size, threads) if size.whole else {})


def _float32(home: Path, scratch: Path, size: AnswersSize, threads: int) -> dict[str, Any]:
    """Are the answers in float32 those of `generate`, one by one?"""
    few = replace(size, n_items=size.n_single)
    ours, single = (
        _run(home, scratch, "replies", mode, few, threads, dtype="float32") for mode in ("tunegate", "single")
    )
    return {"equal_float32": ours.tokens == single.tokens, "items_float32": size.n_single}


def _run(
    home: Path, scratch: Path, case: str, mode: str, size: AnswersSize, threads: int, *, dtype: str = "bfloat16"
) -> Answers:
    answer = scratch / "answers.json"
    answer.unlink(missing_ok=True)
    count = size.n_single if mode == "single" else size.n_items
    way = f"{mode.removesuffix('-tuned')}:{dtype}"
    command = [
        sys.executable, "answer_engine.py", way, home / "model.json", home / f"prompts-{case}", answer,
        str(CASES[case]), str(count), str(size.batch),
    ]  # fmt: skip
    cost = run_script(command, scratch, threads=threads, own=True, tuned=mode.endswith("-tuned"))
    if not cost.complete:
        raise RuntimeError(f"{mode} on {case}: {told(cost)}")
    print(f"{case} {mode} {dtype}: {cost.cpu_s:.1f} s CPU in all", file=sys.stderr, flush=True)
    got = json.loads(answer.read_text())
    tokens = tuple(tuple(row) for row in got["tokens"])
    return Answers(
        case, mode, count, got["cpu_s"] / count, got["wall_s"] / count, sum(map(len, tokens)), cost.peak_mb, tokens
    )


def _middle(runs: Sequence[Answers]) -> Answers:
    first = runs[0]
    return Answers(
        first.case,
        first.mode,
        first.n_items,
        median(run.cpu_s for run in runs),
        median(run.wall_s for run in runs),
        first.n_new,
        median(run.peak_mb for run in runs),
        first.tokens,
    )


def _figures(results: Sequence[Answers]) -> dict[str, Any]:
    """Ratios of CPU seconds an item, `_wall` of seconds; `agree`: share of items with equal tokens, in bfloat16."""
    by = {(one.case, one.mode): one for one in results}
    told: dict[str, Any] = {}
    cases = {case: n_new for case, n_new in CASES.items() if (case, "tunegate") in by}
    for case, n_new in cases.items():
        ours, batch, single = (by[case, mode] for mode in ("tunegate", "batch", "single"))
        told[f"ratio_generate_{n_new}"] = batch.cpu_s / ours.cpu_s
        told[f"ratio_generate_wall_{n_new}"] = batch.wall_s / ours.wall_s
        if (case, "batch-tuned") in by:
            told[f"ratio_generate_tuned_{n_new}"] = by[case, "batch-tuned"].cpu_s / ours.cpu_s
        told[f"ratio_generate_single_{n_new}"] = single.cpu_s / ours.cpu_s
        told[f"agree_batch_{n_new}"] = agreement(ours.tokens, batch.tokens)
        told[f"agree_single_{n_new}"] = agreement(ours.tokens, single.tokens)
        told[f"agree_batch_single_{n_new}"] = agreement(batch.tokens, single.tokens)
    told["ratio_generate"] = min(told[f"ratio_generate_{n_new}"] for n_new in cases.values())
    told["ratio_generate_wall"] = min(told[f"ratio_generate_wall_{n_new}"] for n_new in cases.values())
    told["ratio_generate_single"] = min(told[f"ratio_generate_single_{n_new}"] for n_new in cases.values())
    return told


def agreement(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> float:
    """Share of the items that both have whose tokens are equal.

    >>> agreement([[1, 2], [3]], [[1, 2], [4], [5]])
    0.5
    """
    pairs = list(zip(one, other, strict=False))
    return sum(tuple(a) == tuple(b) for a, b in pairs) / len(pairs)
