"""Our own engine, as the training process runs it: `tasks.train.engine.train` on a model opened by our own code."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from shared import Clock, Task

from benchmarks.train.workload import WORKLOADS, spec_of
from schemas.artifacts import ModelRef
from tasks.model.adapter import open_for_training
from tasks.train.engine import train
from tasks.train.job import ProgressLog


class Recorder(ProgressLog):
    """Takes the time where the training process would write its log."""

    clock = Clock()

    def write(self, **entry: Any) -> None:
        if entry["event"] == "started":
            self.clock.start()
        elif entry["event"] == "step":
            self.clock.step(entry["loss"])


def main() -> None:
    task = Task.read()
    told = json.loads((task.folder / "settings.json").read_text())
    spec = spec_of(
        WORKLOADS[told["workload"]], threads=told["threads"], dtype=told["dtype"], batch_size=task.batch_size
    )
    model = open_for_training(ModelRef.model_validate(told["model"]), spec)
    with tempfile.TemporaryDirectory(dir=task.answer.parent) as scratch:
        log = Recorder(Path(scratch) / "progress.jsonl")
        outcome = train(
            model,
            spec,
            train_folder=task.folder / "dataset" / "train",
            validation_folder=task.folder / "dataset" / "validation",
            checkpoints=Path(scratch),
            key="benchmark",
            log=log,
        )
    task.write(log.clock, float(outcome.curve[-1]["validation_loss"] or "nan"))


if __name__ == "__main__":
    main()
