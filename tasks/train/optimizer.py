"""AdamW as configured, the learning rate of each step, and the optimiser's state as named tensors and back.

Moments have 32 or 8 bits (torch's or bitsandbytes' AdamW) and are restored bit for bit.
"""

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from schemas.training import TrainSpec
from tasks.train.memory import check_device

_CONSTANT = ("qmap1", "qmap2")
"""Code books of 8-bit moments: the same for every weight, and created again by the optimiser."""


def make_optimizer(model: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    """AdamW over the trainable weights in order of their names; norms and biases (one axis) do not decay.

    Raises:
        ConfigError: paged moments on a device without CUDA.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019); Dettmers et al., 8-bit Optimizers via
    Block-wise Quantization (2022); paged: Dettmers et al., QLoRA (2023).
    """
    trainable = [parameter for _, parameter in sorted(model.named_parameters()) if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rates: dict[str, Any] = {"lr": spec.learning_rate, "betas": (spec.adam_beta1, spec.adam_beta2)}
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True, **rates)
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    if spec.optimizer == "adamw_8bit":
        return cast(torch.optim.Optimizer, AdamW8bit(groups, **rates))
    check_device(spec, trainable[0].device.type)
    return cast(torch.optim.Optimizer, PagedAdamW8bit(groups, **rates))


def learning_rate_at(step: int, spec: TrainSpec, *, n_steps: int) -> float:
    """Learning rate of a step: linear warm-up, then constant, or falling to the floor after the last step.

    Args:
        step: From 1.
        n_steps: Of the whole training.

    >>> spec = TrainSpec(base_model="x", learning_rate=2e-4, warmup=0.25, lr_scheduler="linear")
    >>> [round(learning_rate_at(step, spec, n_steps=4), 6) for step in (1, 2, 4)]
    [0.0002, 0.00015, 5e-05]
    """
    peak, min_ratio = spec.learning_rate, spec.min_lr_ratio
    n_warmup = math.ceil(spec.warmup * n_steps if spec.warmup < 1 else spec.warmup)
    if step <= n_warmup:
        return peak * step / n_warmup
    if spec.lr_scheduler == "constant":
        return peak
    done = (step - n_warmup) / (n_steps - n_warmup + 1)
    left = 1 - done if spec.lr_scheduler == "linear" else (1 + math.cos(math.pi * done)) / 2
    return peak * (min_ratio + (1 - min_ratio) * left)


def moments_of(weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors and step counts as `kind/weight name`; they may share memory with the optimiser."""
    names = {weight.data_ptr(): name for name, weight in weights.items()}
    return {
        f"{kind}/{names[parameter.data_ptr()]}": torch.as_tensor(value).detach().contiguous()
        for parameter, moments in optimizer.state.items()
        for kind, value in moments.items()
        if kind not in _CONSTANT
    }


def restore_moments(
    moments: Mapping[str, Tensor], weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Restore the result of `moments_of`, for the same weights in the same kind of optimiser."""
    names = {weight.data_ptr(): name for name, weight in weights.items()}
    kinds: dict[str, dict[str, Tensor]] = {}
    for key, tensor in moments.items():
        kind, _, name = key.partition("/")
        kinds.setdefault(name, {})[kind] = tensor
    for at, group in enumerate(optimizer.param_groups):
        for place, parameter in enumerate(group["params"]):
            kept = kinds.get(names[parameter.data_ptr()], {})
            if kept and hasattr(optimizer, "init_state"):
                _fill(optimizer, group, parameter, (at, place), kept)
            elif kept:
                optimizer.state[parameter] = {kind: tensor.to(parameter.device) for kind, tensor in kept.items()}


def _fill(
    optimizer: Any, group: dict[str, Any], parameter: Tensor, place: tuple[int, int], kept: Mapping[str, Tensor]
) -> None:
    """Let bitsandbytes create its own buffers, which may be paged, and overwrite them."""
    optimizer.init_state(group, parameter, *place)
    state = optimizer.state[parameter]
    for kind, tensor in kept.items():
        if isinstance(state[kind], Tensor):
            state[kind].copy_(tensor)
        else:
            state[kind] = int(tensor)
