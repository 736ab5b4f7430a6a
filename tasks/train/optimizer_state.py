"""An optimiser's state as named tensors and back, bit for bit: torch's AdamW and the 8-bit ones of bitsandbytes.

It knows nothing of files. Used by tasks/train/checkpoint.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_CONSTANT = ("qmap1", "qmap2")
"""Code books of 8-bit moments: the same for every weight, and made anew by the optimiser."""


def moments_of(weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors and step counts as `kind/name of the weight`; tensors may be shared with it."""
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
    """Put back what `moments_of` gave, for the same weights in the same kind of optimiser."""
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
    """bitsandbytes makes its own buffers (paged ones among them), which are then overwritten."""
    optimizer.init_state(group, parameter, *place)
    state = optimizer.state[parameter]
    for kind, tensor in kept.items():
        if isinstance(state[kind], Tensor):
            state[kind].copy_(tensor)
        else:
            state[kind] = int(tensor)
