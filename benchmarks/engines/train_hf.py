"""transformers.Trainer and TRL's SFTTrainer on a PEFT model, with the same adapter and the same batches.

Modes: see MODES.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import Dataset, SequentialSampler
from train_shared import IGNORED, Clock, Task, mean_loss, padded
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

MODES: dict[str, dict[str, Any]] = {
    # In bfloat16: autocast over bfloat16 weights, as ours, so that PEFT's float32 factors multiply in bf16 too.
    "trainer": {},
    "trl-default": {},
    "trl-best": {"gradient_checkpointing": False},
    "trl-free": {"gradient_checkpointing": False, "padding_free": True},
}


class Watch(TrainerCallback):
    """Runs the clock in the trainer's own callbacks."""

    def __init__(self) -> None:
        self.clock = Clock()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.clock.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.clock.step(float("nan"))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" in logs:
            self.clock.steps[-1]["loss"] = float(logs["loss"])


def settings(task: Task, folder: str) -> dict[str, Any]:
    """Settings of all modes."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": task.batch_size,
        "num_train_epochs": 1,
        "learning_rate": task.learning_rate,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1e9,
        "weight_decay": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
        "bf16": task.is_narrow,
        "dataloader_num_workers": 0,
    }


class Rows(Dataset[dict[str, list[int]]]):
    def __init__(self, task: Task) -> None:
        self.rows = task.train

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, list[int]]:
        ids, labels = self.rows[place]
        return {"input_ids": ids, "labels": labels}


def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    ids, mask, labels = padded([(row["input_ids"], row["labels"]) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class InOrder(Trainer):
    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)


def stock_trainer(task: Task, model: Any, folder: str, watch: Watch) -> Trainer:
    arguments = TrainingArguments(**settings(task, folder), remove_unused_columns=False, **MODES[task.mode])
    return InOrder(model=model, args=arguments, train_dataset=Rows(task), data_collator=collate, callbacks=[watch])


def trl_trainer(task: Task, model: Any, folder: str, watch: Watch) -> Trainer:
    """A trainer for our token ids and mask: TRL accepts them as `assistant_masks`."""
    from datasets import Dataset as Table
    from trl import SFTConfig, SFTTrainer

    class TrlInOrder(SFTTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
            return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    rows = [
        {"input_ids": ids, "assistant_masks": [int(label != IGNORED) for label in labels]} for ids, labels in task.train
    ]
    arguments = SFTConfig(**settings(task, folder), max_length=None, **MODES[task.mode])
    return TrlInOrder(
        model=model,
        args=arguments,
        train_dataset=Table.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(task.model),
        callbacks=[watch],
    )


def main() -> None:
    task = Task.read()
    base = AutoModelForCausalLM.from_pretrained(task.model, dtype=task.dtype)
    base.requires_grad_(False)
    model = PeftModel.from_pretrained(base, str(task.folder / "adapter"), is_trainable=True)
    watch = Watch()
    with tempfile.TemporaryDirectory(dir=task.answer.parent) as folder:
        make = trl_trainer if task.mode.startswith("trl") else stock_trainer
        trainer = make(task, model, folder, watch)
        trainer.train()
    model.eval()
    device = model.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=task.is_narrow):
        loss = mean_loss(
            lambda ids, mask: model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits.cpu(), task
        )
    task.write(watch.clock, loss)


if __name__ == "__main__":
    main()
