"""How far our step's gradient is from the stock model's plain backward, in float32.

Called as `gradient_engine.py job.json answer.json`.

The loss is the mean over the supervised tokens of one batch; the stock side is PEFT's model, its own forward, full
logits and `cross_entropy`, padded on the right. LoRA's B is set to random values first: at zero half of the arithmetic
would not show.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from schemas.artifacts import ModelRef
from schemas.training import TrainSpec
from tasks.model.adapter import open_for_training
from tasks.train.batches import Batch, Examples
from tasks.train.forward import losses_of


def stock_gradients(model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """Of the model's own forward."""
    model.zero_grad()
    logits = model(input_ids=batch.ids, use_cache=False).logits
    chosen = logits[batch.rows, batch.columns]
    functional.cross_entropy(chosen.float(), batch.targets).backward()
    return _taken(model)


def own_gradients(model: Any, losses: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """Of the losses that training uses, with what examples share computed once where this version does so."""
    from contextlib import nullcontext

    model.zero_grad()
    sharing = losses.sharing([batch]) if hasattr(losses, "sharing") else nullcontext()
    with sharing:
        losses(batch).mean().backward()
    return _taken(model)


def _taken(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def main() -> None:
    """The largest relative difference of a tensor's gradient, and that of the whole gradient."""
    told = json.loads(Path(sys.argv[1]).read_text())
    spec = TrainSpec.model_validate({**told["spec"], "dtype": "float32"})
    model = open_for_training(ModelRef.model_validate(told["model"]), spec)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0, 0.02)
    examples = Examples(Path(told["dataset"]["root"]) / "train")
    batch = examples.batch(range(min(spec.batch_size, len(examples))))
    wanted = stock_gradients(model, batch)
    got = own_gradients(model, losses_of(model, dtype=torch.float32, recompute=False), batch)
    each = [float((got[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted]
    square = sum(float((got[name] - wanted[name]).square().sum()) for name in wanted)
    whole = (square / sum(float(value.square().sum()) for value in wanted.values())) ** 0.5
    Path(sys.argv[2]).write_text(json.dumps({"max_rel_diff": max(each), "rel_diff": whole, "n_tensors": len(each)}))


if __name__ == "__main__":
    main()
