"""What a training process reads, and the files in which it reports back.

Used on both sides of the process boundary, so it imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from schemas.artifacts import DatasetRef, ModelRef, TrainedRef
from schemas.training import TrainSpec
from tasks.storage.files import sha256_json
from tasks.train.memory import Workload, smaller_batches, workload_of

JOB = "job.json"
PROGRESS = "progress.jsonl"
USED = "used.json"
"""Seconds of all attempts so far."""
ERROR = "error.json"
LOG = "worker.log"
FINAL = "final"
CHECKPOINTS = "checkpoints"
KEPT = 2
"""Checkpoints to keep: the newest, and the one before in case the newest is damaged."""
ANSWERS = "answers"
"""Folder with the answers to validation tickets, by job and step."""
MEMORY_FIGURES = ("predicted_memory_bytes", "peak_memory_bytes")
"""Fields of one training process's `memory` event: predicted before training, measured after it."""
INTERRUPTED = 75
"""Exit code of a process that was stopped and has saved a checkpoint (EX_TEMPFAIL)."""


class TrainJob(BaseModel):
    """One training: its inputs, its settings and the folder it works in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: DatasetRef
    model: ModelRef
    spec: TrainSpec
    scratch: Path
    threads: int
    start: TrainedRef | None = None
    """The adapter to continue from; None starts from the base."""
    trunks: Path | None = None
    """Folder where trainings share the output of frozen layers; None for a folder of this training's own."""

    def workload(self) -> Workload | None:
        """What determines its memory; None when that cannot be computed."""
        share = self.dataset.n_supervised / max(1, self.dataset.n_tokens)
        return workload_of(self.model, max_tokens=self.dataset.max_tokens, supervised_share=share)

    def key(self) -> str:
        """sha256 of everything that determines the weights, except file locations; only its own checkpoints are used.

        Threads are left out: a training may resume with a different number, though its bytes may then differ.
        """
        return sha256_json(
            {
                "dataset": self.dataset.digest,
                "model": self.model.digest,
                **({} if self.start is None else {"start": self.start.digest}),
                "spec": self.spec.model_dump(
                    mode="json", exclude={"timeout_minutes", "budget", "save_every", "threads", "memory_check"}
                ),
            }
        )

    def halved(self) -> TrainJob | None:
        """The same training with half the batch size and as many examples per step; None at batch size 1."""
        changes = next(smaller_batches(self.spec), None)
        return None if changes is None else self.model_copy(update={"spec": self.spec.model_copy(update=changes)})


@dataclass(frozen=True)
class ProgressLog:
    """`progress.jsonl`: one JSON object per line, appended by the training process and read by its parent.

    `event: step` has `step`, `n_steps`, `loss` (nats per supervised token), `learning_rate`, `grad_norm`, `n_tokens`
    (of all steps so far), `step_tokens` and `seconds` (of this step). Other events: `started`, `validation` (loss),
    `warning` (message), `trunk` (path, filled: computed now), `ended`, and for a finished training `memory`
    (`MEMORY_FIGURES`). The parent writes `halved` (key: of the job that ran out of memory; batch_size and
    gradient_accumulation_steps from then on). A training on a cluster also writes `attempt` (workers start), `kept`
    (step: a checkpoint is on the shared storage) and `lost` (rank, why).
    """

    path: Path

    def write(self, **entry: Any) -> None:
        """Append one line; a reader that waits for the newline sees all of it or nothing."""
        with self.path.open("ab") as stream:
            stream.write(orjson.dumps(entry) + b"\n")

    def read(self, offset: int) -> tuple[list[dict[str, Any]], int]:
        """The entries of the complete lines from byte `offset` on, and the offset for the next call."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(offset)
                data = stream.read()
        except FileNotFoundError:
            return [], offset
        whole, _, _ = data.rpartition(b"\n")
        entries = [entry for line in whole.split(b"\n") if (entry := _entry(line)) is not None]
        return entries, offset + (len(whole) + 1 if whole else 0)


def _entry(line: bytes) -> dict[str, Any] | None:
    """The entry of a line, or None: a disk may have damaged what an earlier attempt wrote."""
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) and "event" in entry else None
