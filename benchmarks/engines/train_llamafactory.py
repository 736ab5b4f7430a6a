"""LLaMA-Factory's `run_exp` (stage sft) on our adapter, with our ids, labels and order; the trainer is its own.

It has no modes; gradient checkpointing, its default, is off.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from llamafactory.train import tuner
from train_shared import Clock, Task, mean_loss
from transformers import TrainerCallback


class Watch(TrainerCallback):
    """Runs the clock, and keeps the model."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.model: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.clock.start()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.clock.step(float("nan"))
        self.model = model

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.clock.steps[-1]["loss"] = float(logs["loss"])


def main() -> None:
    task, watch = Task.read(), Watch()
    with tempfile.TemporaryDirectory(dir=task.answer.parent) as scratch:
        tokenised = Path(scratch) / "tokenised"
        rows = [{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels} for ids, labels in task.train]
        DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(str(tokenised))
        tuner.run_exp(
            {
                "stage": "sft",
                "do_train": True,
                "model_name_or_path": str(task.model),
                "adapter_name_or_path": str(task.folder / "adapter"),
                "finetuning_type": "lora",
                "dataset": "ours",  # must be named, and is then not read
                "tokenized_path": str(tokenised),
                "template": "empty",
                "output_dir": str(Path(scratch) / "out"),
                "per_device_train_batch_size": task.batch_size,
                "gradient_accumulation_steps": 1,
                "learning_rate": task.learning_rate,
                "lr_scheduler_type": "constant",
                "max_grad_norm": 1e9,
                "num_train_epochs": 1,
                "bf16": task.is_narrow,
                "disable_shuffling": True,
                "disable_gradient_checkpointing": True,
                "logging_steps": 1,
                "save_strategy": "no",
                "report_to": "none",
                "use_cpu": True,
            },
            callbacks=[watch],
        )
    model = watch.model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=task.is_narrow):
        loss = mean_loss(lambda ids, mask: model(input_ids=ids, attention_mask=mask).logits, task)
    task.write(watch.clock, loss)


if __name__ == "__main__":
    main()
