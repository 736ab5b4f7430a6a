"""Shared by all scripts of `bench-train`: examples, the clock of each step, the answer.

A script is called as `train_x.py MODE model/ workload/ answer.json` in its library's environment, so this file imports
only the standard library and torch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

RANK, ALPHA, SEED = 16, 32, 20261126
IGNORED = -100


@dataclass
class Clock:
    """Loss, CPU seconds of all threads and wall seconds since the start of the process, after each step."""

    steps: list[dict[str, float]] = field(default_factory=list)

    def start(self) -> None:
        """Record the time before the first step."""
        self.steps.append(_now() | {"loss": 0.0})

    def step(self, loss: float) -> None:
        self.steps.append(_now() | {"loss": loss})


def _now() -> dict[str, float]:
    on_gpu = {}
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        on_gpu = {"device_peak_mb": torch.cuda.max_memory_allocated() / 1e6}
    return {"cpu_s": time.process_time(), "wall_s": time.time() - float(os.environ["BENCH_STARTED"]), **on_gpu}


@dataclass(frozen=True)
class Task:
    """One training."""

    mode: str
    model: Path
    folder: Path
    answer: Path
    train: list[tuple[list[int], list[int]]]
    """Ids and labels (`IGNORED` without loss), in the order of the steps."""
    validation: list[tuple[list[int], list[int]]]
    batch_size: int
    learning_rate: float
    dtype: torch.dtype
    """Number type, the same for all."""

    @property
    def is_narrow(self) -> bool:
        """Whether it is bfloat16."""
        return self.dtype == torch.bfloat16

    @classmethod
    def read(cls) -> Task:
        """Read the task from the command line; sets the number of threads."""
        mode, model, folder, answer = sys.argv[1:5]
        given = json.loads((Path(folder) / "examples.json").read_text())
        rows = {split: [(ids, _labels(ids, mask)) for ids, mask in given[split]] for split in ("train", "validation")}
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.manual_seed(SEED)
        train = [rows["train"][place] for batch in given["batches"] for place in batch]
        return cls(
            mode, Path(model), Path(folder), Path(answer), train, rows["validation"], given["batch_size"],
            given["learning_rate"], getattr(torch, given["dtype"]),
        )  # fmt: skip

    def write(self, clock: Clock, validation_loss: float, **more: object) -> None:
        """Write the answer; the clock's first entry is the start."""
        more |= {"steps": clock.steps, "validation_loss": validation_loss, "on_gpu": torch.cuda.is_initialized()}
        self.answer.write_text(json.dumps(more))


def padded(rows: Sequence[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and labels (rows, longest), padded on the right."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _, labels in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows])
    return ids, mask, labels


def mean_loss(logits_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], task: Task) -> float:
    """Mean nats over all supervised tokens of the validation split; not timed."""
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(task.validation), 8):
            ids, mask, labels = padded(task.validation[start : start + 8])
            logits = logits_of(ids, mask)[:, :-1].float()
            wanted = labels[:, 1:]
            total += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum"))
            count += int((wanted != IGNORED).sum())
    return total / count


def _labels(ids: list[int], mask: list[int]) -> list[int]:
    return [token if carries else IGNORED for token, carries in zip(ids, mask, strict=True)]
