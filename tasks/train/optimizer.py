"""AdamW as the settings say, and the learning rate of each step.

It knows nothing of data. Used by tasks/train/engine.py.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from schemas.training import TrainSpec


def make_optimizer(model: nn.Module, spec: TrainSpec) -> torch.optim.AdamW:
    """AdamW over what trains, in the order of names; norms and biases (one axis) do not decay.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019).
    """
    trainable = [parameter for _, parameter in sorted(model.named_parameters()) if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=spec.learning_rate,
        betas=(spec.adam_beta1, spec.adam_beta2),
        fused=True,
    )


def learning_rate_at(
    step: int,
    *,
    n_steps: int,
    peak: float,
    warmup_ratio: float,
    scheduler: Literal["constant", "linear", "cosine"],
) -> float:
    """Learning rate of a step (from 1): linear warm-up, then constant, or down to zero after the last step.

    >>> [round(learning_rate_at(s, n_steps=4, peak=1.0, warmup_ratio=0.25, scheduler="linear"), 2) for s in (1, 2, 4)]
    [1.0, 0.75, 0.25]
    """
    n_warmup = math.ceil(warmup_ratio * n_steps)
    if step <= n_warmup:
        return peak * step / n_warmup
    if scheduler == "constant":
        return peak
    done = (step - n_warmup) / (n_steps - n_warmup + 1)
    return peak * (1 - done if scheduler == "linear" else (1 + math.cos(math.pi * done)) / 2)
