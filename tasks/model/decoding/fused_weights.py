"""Weights of a decoder layer as generation wants them: norms, and linear layers with one input joined into one product.

LoRA factors stay apart from the frozen weights. Knows nothing of layers and caches. Used by the other
modules of this folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class Norm:
    """RMS norm, statistics in float32. Source: Zhang and Sennrich (2019)."""

    def __init__(self, module: Any) -> None:
        self.weight: Tensor = module.weight
        self.epsilon: float = module.variance_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        wide = x.float()
        # The vector norm reads once what square and mean would write and read again.
        square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        scale = square.div_(x.shape[-1]).add_(self.epsilon).rsqrt_()
        return wide.mul_(scale).to(x.dtype).mul_(self.weight) if wide is not x else x * scale * self.weight


class JoinedLinear:
    """Linear layers with a common input as one product, with LoRA factors where there are any.

    On a CPU the weight is laid out once as the library's kernel wants it, which it would do again at each product; in
    bfloat16 where the processor multiplies it. That layout replaces the modules' own weights, unless these are `shared`
    with another module.

    Args:
        modules: `nn.Linear`, 4-bit or with LoRA around them.
        shared: The weight is used elsewhere too: it stays, next to its layout.
        keep: No new layout, so that the modules' weights serve here and elsewhere.
    """

    def __init__(self, *modules: Any, shared: bool = False, keep: bool = False) -> None:
        bases = [getattr(module, "base_layer", module) for module in modules]
        weight = _joined_weight(bases)
        self.bias = _joined_bias(bases)
        self.lora = _joined_factors(modules, bases, weight.dtype)
        self.packed = not keep and packs(weight)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None) if self.packed else weight
        if self.packed and not shared:
            for base in bases:
                if base.weight.dtype == weight.dtype:
                    base.weight.data = weight.new_empty(0)

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        else:
            out = functional.linear(x, self.weight, self.bias)
        if self.lora is None:
            return out
        down, up = self.lora
        narrow = functional.linear(x, down).flatten(0, -2)
        out.view(-1, out.shape[-1]).addmm_(narrow, up)
        return out


def packs(weight: Tensor) -> bool:
    """Can the processor's library keep this weight in the layout of its kernel?"""
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if weight.device.type != "cpu" or not torch._C._get_mkldnn_enabled():
        return False
    known = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)  # type: ignore[no-untyped-call]
    if weight.dtype == torch.bfloat16:
        return bool(known and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(known and weight.dtype == torch.float32)


def _joined_factors(modules: Sequence[Any], bases: Sequence[Any], dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """LoRA's A one below the other, and B times the scale, transposed, in blocks; None without an adapter."""
    adapted = [module for module in modules if hasattr(module, "lora_A")]
    if not adapted:
        return None
    down = torch.cat([module.lora_A["default"].weight for module in adapted])
    ups = [
        module.lora_B["default"].weight * module.scaling["default"]
        if hasattr(module, "lora_B")
        else down.new_zeros(base.out_features, 0)
        for module, base in zip(modules, bases, strict=True)
    ]
    up = torch.block_diag(*ups)  # type: ignore[no-untyped-call]
    return down.to(dtype), up.to(dtype).t()


def _joined_weight(bases: Sequence[Any]) -> Tensor:
    weights = [_plain_weight(base) for base in bases]
    if len(weights) == 1:
        return weights[0]
    if _lie_together(weights):
        first = weights[0]
        shape = (sum(len(weight) for weight in weights), first.shape[1])
        return first.detach().as_strided(shape, first.stride(), first.storage_offset())
    joined = torch.cat(weights)
    if all(weight is base.weight for weight, base in zip(weights, bases, strict=True)):
        # The modules become views of the common matrix, so that it costs no memory.
        for base, part in zip(bases, torch.split(joined, [len(weight) for weight in weights]), strict=True):
            base.weight.data = part
    return joined


def _lie_together(weights: Sequence[Tensor]) -> bool:
    """Are the matrices parts of one joined before, in this order? Then a second adapter on the base joins nothing."""
    place = weights[0].storage_offset()
    for weight in weights:
        same = weight.untyped_storage().data_ptr() == weights[0].untyped_storage().data_ptr()
        if (
            not same
            or not weight.is_contiguous()
            or weight.storage_offset() != place
            or weight.dtype != weights[0].dtype
        ):
            return False
        place += weight.numel()
    return True


def _plain_weight(base: Any) -> Tensor:
    """The (d_out, d_in) matrix; a 4-bit one is dequantised once, as its own forward would at each token."""
    weight: Tensor = base.weight
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit

    dense: Tensor = dequantize_4bit(weight.data, state)
    return dense.to(getattr(base, "compute_dtype", None) or dense.dtype)


def _joined_bias(bases: Sequence[Any]) -> Tensor | None:
    """The layers' biases one after another, zero for a layer without; None when no layer has one."""
    known = [base.bias for base in bases if base.bias is not None]
    if not known:
        return None
    return torch.cat([known[0].new_zeros(base.out_features) if base.bias is None else base.bias for base in bases])
