"""Generation for an evaluation: our decoder beside transformers' `generate` in batches of 64 and item by item.

Called by `benchmarks/train/__main__.py`.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
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
N_SINGLE = 12


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
    model: ModelRef,
    home: Path,
    scratch: Path,
    *,
    n_items: int,
    rounds: int,
    threads: int,
    n_single: int = N_SINGLE,
    scored: bool = True,
) -> tuple[list[Answers], dict[str, Any]]:
    """Every way on every case, interleaved; medians over the rounds, and how far the answers agree.

    `scored`: also our way with the loss of each reference answer.
    """
    modes = MODES if scored else tuple(mode for mode in MODES if mode not in ("tunegate-scored", "batch-tuned"))
    (home / "model.json").write_text(model.model_dump_json())
    found: dict[tuple[str, str], list[Answers]] = defaultdict(list)
    for case in CASES:
        write_prompts(WORKLOADS[case], home / f"prompts-{case}", n_items=n_items)
    for number in range(rounds):
        for case in CASES:
            for mode in modes[number % 2 :] + modes[: number % 2]:
                if number and mode == "single":
                    continue  # the slowest, and the furthest from its bar
                found[case, mode].append(_run(home, scratch, case, mode, n_items, n_single, threads))
    exact = {
        mode: _run(home, scratch, "replies", mode, n_single, n_single, threads, dtype="float32")
        for mode in ("tunegate", "single")
    }
    results = [_middle(runs) for runs in found.values()]
    return results, _figures(results) | {
        "equal_float32": exact["tunegate"].tokens == exact["single"].tokens,
        "items_float32": n_single,
    }


def _run(
    home: Path, scratch: Path, case: str, mode: str, n_items: int, n_single: int, threads: int,
    *, dtype: str = "bfloat16",
) -> Answers:  # fmt: skip
    answer = scratch / "answers.json"
    answer.unlink(missing_ok=True)
    count = n_single if mode == "single" else n_items
    way = f"{mode.removesuffix('-tuned')}:{dtype}"
    command = [
        sys.executable, "answer_engine.py", way, home / "model.json", home / f"prompts-{case}", answer,
        str(CASES[case]), str(count),
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
    for case, n_new in CASES.items():
        ours, batch, single = (by[case, mode] for mode in ("tunegate", "batch", "single"))
        told[f"ratio_generate_{n_new}"] = batch.cpu_s / ours.cpu_s
        told[f"ratio_generate_wall_{n_new}"] = batch.wall_s / ours.wall_s
        if (case, "batch-tuned") in by:
            told[f"ratio_generate_tuned_{n_new}"] = by[case, "batch-tuned"].cpu_s / ours.cpu_s
        told[f"ratio_generate_single_{n_new}"] = single.cpu_s / ours.cpu_s
        told[f"agree_batch_{n_new}"] = agreement(ours.tokens, batch.tokens)
        told[f"agree_single_{n_new}"] = agreement(ours.tokens, single.tokens)
        told[f"agree_batch_single_{n_new}"] = agreement(batch.tokens, single.tokens)
    told["ratio_generate"] = min(told[f"ratio_generate_{n_new}"] for n_new in CASES.values())
    told["ratio_generate_wall"] = min(told[f"ratio_generate_wall_{n_new}"] for n_new in CASES.values())
    told["ratio_generate_single"] = min(told[f"ratio_generate_single_{n_new}"] for n_new in CASES.values())
    return told


def agreement(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> float:
    """Share of the items that both have whose tokens are equal.

    >>> agreement([[1, 2], [3]], [[1, 2], [4], [5]])
    0.5
    """
    pairs = list(zip(one, other, strict=False))
    return sum(tuple(a) == tuple(b) for a, b in pairs) / len(pairs)
