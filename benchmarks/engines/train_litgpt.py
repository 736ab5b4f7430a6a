"""litgpt's `finetune_lora` on its own GPT, with our adapter's A and our ids, labels and batches.

Its schedule (cosine), its saving and its sample generation are removed; loop, model, loss and optimiser are its own.
The precision is `bf16-true`, its fastest on a CPU, or `32-true`.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import torch
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data import DataModule
from litgpt.finetune import lora
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from train_shared import ALPHA, RANK, Clock, Task, mean_loss, padded

NAME = "SmolLM2-135M-Instruct"
PARTS = {
    "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": ("self_attn.o_proj",),
    "mlp.fc_1": ("mlp.gate_proj",),
    "mlp.fc_2": ("mlp.up_proj",),
    "mlp.proj": ("mlp.down_proj",),
}


class DoneError(Exception):
    """Raised at the end of the epoch, when litgpt would generate a sample text."""


class Ours(DataModule):
    """Our batches in order; a step starts at its collation."""

    def __init__(self, task: Task, clock: Clock, losses: list[float]) -> None:
        super().__init__()
        self.task, self.clock, self.losses = task, clock, losses

    def connect(self, *_: Any, **__: Any) -> None:
        """Do nothing: it needs no tokenizer."""

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.task.train, self._begin)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.task.validation, _batch)

    def _loader(self, rows: list[tuple[list[int], list[int]]], collate: Any) -> DataLoader[Any]:
        listed = [{"input_ids": ids, "labels": labels} for ids, labels in rows]
        return DataLoader(listed, batch_size=self.task.batch_size, collate_fn=collate)  # type: ignore[arg-type]

    def _begin(self, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        if self.losses:
            self.clock.step(self.losses[-1])
        else:
            self.clock.start()
        return _batch(rows)


def _batch(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    ids, mask, labels = padded([(row["input_ids"], row["labels"]) for row in rows])
    counts = mask.sum(1)
    return {"input_ids": ids, "labels": labels, "token_counts": {"raw": counts, "raw_plus_prompt_template": counts}}


def checkpoint(model: Path, aside: Path, dtype: str) -> Path:
    """The model in litgpt's format, converted once."""
    folder = aside / NAME
    if not (folder / "lit_model.pth").exists():
        folder.mkdir(exist_ok=True)
        for path in model.iterdir():
            if not (folder / path.name).exists():
                (folder / path.name).symlink_to(path.resolve())
        convert_hf_checkpoint(checkpoint_dir=folder, model_name=NAME, dtype=dtype)
    return folder


def begin_with(model: Any, adapter: Path) -> None:
    """Copy the adapter's A; B is zero in both."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    with torch.no_grad():
        for number, block in enumerate(model.transformer.h):
            for own, theirs in PARTS.items():
                parts = [tensors[f"base_model.model.model.layers.{number}.{name}.lora_A.weight"] for name in theirs]
                block.get_submodule(own).lora_A.copy_(torch.cat(parts))


def main() -> None:
    task, clock = Task.read(), Clock()
    losses: list[float] = []
    held: dict[str, Any] = {}
    load, entropy = lora.load_checkpoint, lora.chunked_cross_entropy

    def load_all(fabric: Any, model: Any, path: Path, **options: Any) -> None:
        load(fabric, model, path, **options)
        begin_with(model, task.folder / "adapter")
        held["model"] = model

    def noted(*arguments: Any, **options: Any) -> torch.Tensor:
        loss = entropy(*arguments, **options)
        losses.append(float(loss.detach()))
        return loss

    def done(*_: Any, **__: Any) -> None:
        raise DoneError

    lora.load_checkpoint, lora.chunked_cross_entropy = load_all, noted
    lora.generate_example = done
    lora.validate = lambda *_, **__: torch.zeros(())
    lora.get_lr_scheduler = lambda optimizer, **_: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    with tempfile.TemporaryDirectory(dir=task.answer.parent) as out, contextlib.suppress(DoneError):
        lora.setup(
            checkpoint_dir=checkpoint(task.model, task.folder.parent, str(task.dtype).removeprefix("torch.")),
            out_dir=Path(out),
            precision="bf16-true" if task.is_narrow else "32-true",
            lora_r=RANK,
            lora_alpha=ALPHA,
            lora_dropout=0.0,
            lora_query=True,
            lora_key=True,
            lora_value=True,
            lora_projection=True,
            lora_mlp=True,
            data=Ours(task, clock, losses),
            train=TrainArgs(
                save_interval=None,
                log_interval=1,
                global_batch_size=task.batch_size,
                micro_batch_size=task.batch_size,
                lr_warmup_steps=0,
                epochs=1,
            ),
            eval=EvalArgs(interval=10_000, max_new_tokens=1, max_iters=1),
            optimizer={
                "class_path": "torch.optim.AdamW",
                "init_args": {"lr": task.learning_rate, "weight_decay": 0.0, "betas": [0.9, 0.999]},
            },
        )
    model = held["model"].eval()
    task.write(clock, mean_loss(lambda ids, _: model(ids), task))


if __name__ == "__main__":
    main()
