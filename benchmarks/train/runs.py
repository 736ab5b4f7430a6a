"""One training of one contestant in a fresh process, and what its answer says. Knows nothing of tables.

Called by `benchmarks/train/__main__.py` and `benchmarks/train/sweep.py`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.home import PROJECT
from benchmarks.measure import Cost, run_measured

ENGINES = Path(__file__).with_name("engines")
LIMIT_S = 150.0
"""Wall seconds of one training or one round of answers; four times what a quiet machine should need."""
KEEP_FREED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""What `tasks/train/worker.py` tells glibc in the training process; here our engine runs without that process. On a GPU
it is also told cuBLAS's work space, as `tasks/train/place.py` does."""


@dataclass(frozen=True)
class Run:
    """One training; `told` says why there are no figures."""

    losses: tuple[float, ...] = ()
    n_tokens: int = 0
    """Of all steps but the first, which warms up."""
    cpu_s: float = math.nan
    wall_s: float = math.nan
    ready_s: float = math.nan
    """Wall seconds from the start of the process to the end of its last step."""
    peak_mb: float = math.nan
    on_gpu: bool = False
    device_peak_mb: float = math.nan
    """Of a GPU's memory, what tensors held at most while it trained; NaN without one."""
    validation_loss: float = math.nan
    told: str = ""


def environment(threads: int, scratch: Path, *, own: bool, tuned: bool = True, card: str = "") -> dict[str, str]:
    """The same for all: threads, no network.

    `own`: our modules, and with `tuned` the allocator as our training process sets it. `tuned`: waiting threads sleep.
    `card`: the one GPU that may be used; none without it.
    """
    kept = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
        if name in os.environ
    }
    return {
        **kept,
        "TMPDIR": str(scratch),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        **({"OMP_WAIT_POLICY": "PASSIVE"} if tuned else {}),
        "PYTHONHASHSEED": "0",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": card,
        "DISABLE_VERSION_CHECK": "1",
        "BENCH_STARTED": str(time.time()),
        **({"PYTHONPATH": str(PROJECT)} if own else {}),
        **(KEEP_FREED if own and tuned else {}),
        **({"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if own and card else {}),
    }


def run_script(
    command: Sequence[str | Path],
    scratch: Path,
    *,
    threads: int,
    own: bool,
    tuned: bool = True,
    card: str = "",
    limit_s: float = LIMIT_S,
) -> Cost:
    """A script of `engines/` in a fresh process."""
    python, script, *rest = map(str, command)
    return run_measured(
        [python, str(ENGINES / script), *rest],
        limit_s=limit_s,
        environment=environment(threads, scratch, own=own, tuned=tuned, card=card),
        folder=scratch,
        scratch=scratch,
    )


def run_training(
    python: Path,
    script: str,
    mode: str,
    *,
    model: Path,
    folder: Path,
    scratch: Path,
    threads: int,
    own: bool,
    card: str = "",
    warm: int = 1,
    limit_s: float = LIMIT_S,
) -> Run:
    """Train once on a prepared workload; `warm` as in `read_run`."""
    answer = scratch / "answer.json"
    answer.unlink(missing_ok=True)
    command = [python, script, mode, model, folder, answer]
    cost = run_script(command, scratch, threads=threads, own=own, card=card, limit_s=limit_s)
    if not cost.complete or not answer.exists():
        return Run(told=told(cost, limit_s))
    examples = json.loads((folder / "examples.json").read_text())
    return read_run(json.loads(answer.read_text()), examples, cost.peak_mb, warm=warm)


def read_run(answer: Mapping[str, Any], examples: Mapping[str, Any], peak_mb: float, *, warm: int = 1) -> Run:
    """An engine's answer as figures; the first `warm` steps are outside of the time."""
    steps: list[dict[str, float]] = answer["steps"][1:]
    batches: list[list[int]] = examples["batches"]
    train: list[list[list[int]]] = examples["train"]
    if len(steps) != len(batches):
        return Run(told=f"{len(steps)} steps, not {len(batches)}")
    first, last = steps[warm - 1], steps[-1]
    return Run(
        losses=tuple(step["loss"] for step in steps),
        n_tokens=sum(len(train[place][0]) for batch in batches[warm:] for place in batch),
        cpu_s=last["cpu_s"] - first["cpu_s"],
        wall_s=last["wall_s"] - first["wall_s"],
        ready_s=last["wall_s"],
        peak_mb=peak_mb,
        on_gpu=bool(answer.get("on_gpu")),
        device_peak_mb=last.get("device_peak_mb", math.nan),
        validation_loss=float(answer["validation_loss"]),
    )


def told(cost: Cost, limit_s: float = LIMIT_S) -> str:
    """Why a process gave no answer."""
    if cost.code is None:
        return f"over {limit_s:.0f} s"
    lines = cost.stderr.strip().splitlines()
    return f"failed ({cost.code}): {lines[-1][:160] if lines else 'without a word'}"
