"""The trainers, one training in a new process, and the table. Knows nothing of the other measurements."""

import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks.measure import (
    ENGINES,
    Bench,
    Cost,
    interpreters,
    isolated,
    report,
    rotated,
    rounded,
    run_measured,
    table,
)
from benchmarks.train.workload import Prepared

LIMIT_S, QUICK_LIMIT_S = 150.0, 60.0
"""Wall seconds of one training or one round of answers; four times what a quiet machine needs."""
KEEP_FREED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""As `tasks/train/part.py` sets for glibc in the training process; here our engine runs without that process. On a GPU
cuBLAS's workspace is set too, as in `tasks/train/place.py`."""
NEAR = 0.05
"""Relative difference of held-out losses within which another trainer counts as equally good."""
COLUMNS = (
    "trainer", "rounds", "tokens per CPU-s", "tokens per s", "ours over it", "peak MB", "s to the loss",
    "loss, held out",
)  # fmt: skip
LEGEND = (
    "tokens: real ones, without padding, of all steps except the first; CPU seconds of all threads. Medians over the "
    "rounds. s to the loss: wall seconds from the start of the process, including imports and loading, to the end of "
    "the last step, if the held-out loss is within 5 % of ours. Peak: resident memory of the process tree."
)


@dataclass(frozen=True)
class Contestant:
    """One way to train the adapter."""

    name: str
    script: str
    mode: str
    environment: str
    """`project`, or the name of a list in `benchmarks/peers/`."""
    role: Literal["ours", "trainer", "trl", "peer"]
    rounds: int
    note: str = ""


CONTESTANTS = (
    Contestant("tunegate", "train_own.py", "train", "project", "ours", 3, "its training process's settings"),
    Contestant("Trainer", "train_hf.py", "trainer", "trl", "trainer", 3, "weights of the same type, autocast, PEFT"),
    Contestant("TRL best", "train_hf.py", "trl-best", "trl", "trl", 3, "no gradient checkpointing, our mask"),
    Contestant("TRL defaults", "train_hf.py", "trl-default", "trl", "peer", 1, "gradient checkpointing, our mask"),
    Contestant("TRL padding-free", "train_hf.py", "trl-free", "trl", "peer", 1, "no gradient checkpointing, our mask"),
    Contestant("litgpt", "train_litgpt.py", "lora", "litgpt", "peer", 1, "`true` precision, the factors too"),
    Contestant("LLaMA-Factory", "train_llamafactory.py", "sft", "llamafactory", "peer", 1, "no gradient checkpointing"),
)
ABSENT = (
    "torchtune 0.6.1: installs (5 GB) but cannot be imported: it imports `dtypes.nf4tensor` of torchao, which torchao "
    "0.18, installed with it, no longer has.",
    "Axolotl 0.19.0: installs (6 GB, including CUDA's libraries) and can be imported; it has no row, because its "
    "trainer is a subclass of transformers.Trainer, which has one.",
    "Unsloth and Liger: their Triton kernels need a GPU.",
)
"""Peers that are not run, with the reason."""


def plan(*, quick: bool) -> list[Contestant]:
    """The contestants to run: with QUICK=1 ours, Trainer and TRL's best."""
    return [one for one in CONTESTANTS if not quick or one.role != "peer"]


@dataclass(frozen=True)
class Place:
    """Where and how processes run."""

    bench: Bench
    scratch: Path
    threads: int
    """Threads of every process."""
    dtype: str
    """Number type of all contestants, ours and the peers."""
    card: str = ""
    """The only GPU that may be used; empty for none."""
    limit_s: float = LIMIT_S
    pythons: Mapping[str, Path] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    """Environment -> reason that it has no interpreter."""

    def run(self, *command: str | Path, own: bool = True, tuned: bool = True) -> Cost:
        """Run a script of `engines/` in a new process.

        Args:
            command: Interpreter, script, arguments.
            own: With our modules, and with `tuned` our training process's allocator settings.
            tuned: Waiting threads sleep.
        """
        python, script, *rest = command
        more = {
            **{name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
            **dict.fromkeys(("HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "DISABLE_VERSION_CHECK"), "1"),
            "TOKENIZERS_PARALLELISM": "false",
            "CUDA_VISIBLE_DEVICES": self.card,
            "BENCH_STARTED": str(time.time()),
            **({"OMP_WAIT_POLICY": "PASSIVE"} if tuned else {}),
            **(KEEP_FREED if own and tuned else {}),
            **({"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if own and self.card else {}),
        }
        environment = isolated(self.scratch, own=own, **more)
        whole = [python, ENGINES / script, *rest]
        return run_measured(
            whole, limit_s=self.limit_s, environment=environment, folder=self.scratch, scratch=self.scratch,
            threads=self.threads,
        )  # fmt: skip


def place_of(bench: Bench, scratch: Path, contestants: Sequence[Contestant], *, dtype: str) -> Place:
    """A place with these contestants' environments, and the number of threads that the environment sets."""
    threads = os.environ.get("THREADS") or os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))
    bench.machine["threads"] = str(threads)
    pythons, missing = interpreters({one.environment for one in contestants}, bench.home)
    limit_s = QUICK_LIMIT_S if bench.quick else LIMIT_S
    return Place(bench, scratch, int(threads), dtype, limit_s=limit_s, pythons=pythons, missing=missing)


@dataclass(frozen=True)
class Run:
    """One training."""

    losses: tuple[float, ...] = ()
    n_tokens: int = 0
    """Tokens of all steps except the first ones, which are warm-up."""
    cpu_s: float = math.nan
    wall_s: float = math.nan
    ready_s: float = math.nan
    """Wall seconds from the start of the process to the end of its last step."""
    peak_mb: float = math.nan
    on_gpu: bool = False
    device_peak_mb: float = math.nan
    """Peak of tensors in a GPU's memory while training; NaN without a GPU."""
    validation_loss: float = math.nan
    failure: str = ""
    """Why there are no figures."""


@dataclass(frozen=True)
class Result:
    """All rounds of one contestant on one workload."""

    contestant: Contestant
    runs: tuple[Run, ...]
    missing: str = ""

    @property
    def failure(self) -> str:
        """Why there are no figures; empty when there are."""
        return self.missing or ("not run" if not self.runs else self.runs[-1].failure)

    @property
    def per_cpu_s(self) -> float:
        return median(run.n_tokens / run.cpu_s for run in self.runs)

    @property
    def per_s(self) -> float:
        return median(run.n_tokens / run.wall_s for run in self.runs)

    def middle(self, of: Callable[[Run], float]) -> float:
        """Median over the rounds."""
        return median(map(of, self.runs))


def run_rounds(
    contestants: Sequence[Contestant], prepared: Prepared, model: Path, place: Place, rounds: int, *, warm: int = 1
) -> list[Result]:
    """Run all rounds of every contestant on one workload, one process at a time; `warm` as in `read_run`."""
    runs: dict[Contestant, list[Run]] = defaultdict(list)
    for number in range(rounds):
        for one in rotated(contestants, number):
            if number >= one.rounds or one.environment in place.missing or (runs[one] and runs[one][-1].failure):
                continue
            runs[one].append(run_training(one, model, prepared.folder, place, warm=warm))
            run = runs[one][-1]
            speeds = f"{run.n_tokens / run.cpu_s:.0f} tokens per CPU-s, {run.n_tokens / run.wall_s:.0f} per s"
            shown = run.failure or f"{speeds}, {run.peak_mb:,.0f} MB"
            report(f"{prepared.workload.name} round {number + 1} {one.name}: {shown}")
    return [Result(one, tuple(runs[one]), place.missing.get(one.environment, "")) for one in contestants]


def run_training(one: Contestant, model: Path, folder: Path, place: Place, *, warm: int = 1) -> Run:
    """Train once on a prepared workload."""
    answer = place.scratch / "answer.json"
    answer.unlink(missing_ok=True)
    command = (place.pythons[one.environment], one.script, one.mode, model, folder, answer)
    cost = place.run(*command, own=one.role == "ours")
    if not cost.complete or not answer.exists():
        return Run(failure=cost.failure or "no answer")
    examples = json.loads((folder / "examples.json").read_text())
    run = read_run(json.loads(answer.read_text()), examples, cost.peak_mb, warm=warm)
    return Run(failure="its libraries did not find the GPU") if place.card and not run.on_gpu else run


def read_run(answer: Mapping[str, Any], examples: Mapping[str, Any], peak_mb: float, *, warm: int = 1) -> Run:
    """An engine's answer as figures; the first `warm` steps are not timed."""
    steps: list[dict[str, float]] = answer["steps"][1:]
    batches: list[list[int]] = examples["batches"]
    train: list[list[list[int]]] = examples["train"]
    if len(steps) != len(batches):
        return Run(failure=f"{len(steps)} steps, not {len(batches)}")
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


def training_table(results: Sequence[Result]) -> str:
    """One row per contestant."""
    ours = _ours(results)
    return table(COLUMNS, [_row(result, ours) for result in results])


def _row(result: Result, ours: Result | None) -> list[object]:
    one = result.contestant
    name = f"**{one.name}**" if one.role == "ours" else one.name
    name += f" ({one.note})" if one.note else ""
    if result.failure:
        return [name, len(result.runs), result.failure]
    loss = result.middle(lambda run: run.validation_loss)
    wanted = ours.middle(lambda run: run.validation_loss) if ours else loss
    reached = loss <= wanted * (1 + NEAR)
    return [
        name, len(result.runs), f"{result.per_cpu_s:.0f}", f"{result.per_s:.0f}",
        f"{ours.per_cpu_s / result.per_cpu_s:.2f}" if ours else "-", f"{result.middle(_peak):,.0f}",
        f"{result.middle(lambda run: run.ready_s):.1f}" if reached else "not reached", f"{loss:.4f}",
    ]  # fmt: skip


def curves(results: Sequence[Result]) -> str:
    """Losses of every step of the first round."""
    done = {result.contestant.name: result.runs[0].losses for result in results if not result.failure}
    lines = (f"- {name}: {' '.join(f'{loss:.3f}' for loss in losses)}" for name, losses in done.items())
    return "\n".join(["Loss of each step:", "", *lines]) if done else ""


def figures(results: Sequence[Result]) -> dict[str, Any]:
    """Ratios of tokens per CPU-second, of medians; over 1 is ours faster. rss: our peak over the smallest peer's.

    None where a contestant has no figure, as when it was over its time; `failures` says why.
    """
    failures = {result.contestant.name: result.failure for result in results if result.failure}
    ours = _ours(results)
    done = [result for result in results if not result.failure and result.contestant.role != "ours"]
    if ours is None:
        return {"ratio_trainer": None, "ratio_trl": None, "failures": failures}
    first = ours.runs[0].losses
    distances = {
        one.contestant.name: max(abs(a - b) for a, b in zip(first, one.runs[0].losses, strict=True)) for one in done
    }
    return {
        "tokens_per_cpu_s": rounded(ours.per_cpu_s),
        "tokens_per_s": rounded(ours.per_s),
        **{f"ratio_{role}": _least_ratio(ours, done, role) for role in ("trainer", "trl")},
        "ratios": {one.contestant.name: rounded(ours.per_cpu_s / one.per_cpu_s) for one in done},
        "ratios_wall": {one.contestant.name: rounded(ours.per_s / one.per_s) for one in done},
        "rss_ratio": rounded(ours.middle(_peak) / min(one.middle(_peak) for one in done)) if done else None,
        "loss_distance": {name: rounded(distance) for name, distance in distances.items()},
        "failures": failures,
    }


def _ours(results: Sequence[Result]) -> Result | None:
    return next((one for one in results if one.contestant.role == "ours" and not one.failure), None)


def _least_ratio(ours: Result, done: Sequence[Result], role: str) -> float | None:
    found = [ours.per_cpu_s / one.per_cpu_s for one in done if one.contestant.role == role]
    return rounded(min(found)) if found else None


def _peak(run: Run) -> float:
    return run.peak_mb
