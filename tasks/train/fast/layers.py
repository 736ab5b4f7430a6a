"""A decoder layer run through `tasks/train/fast/kernels.py` on the model's own weights.

It reads the modules that PEFT made, so that what trains is saved, loaded and served as any other adapter. It knows
nothing of batches and losses. Used by tasks/train/fast/decoder.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.train.fast.attention import Heads, packed_attention
from tasks.train.fast.kernels import adapted_linear, frozen_linear, gated_unit, rms_norm
from tasks.train.fast.packing import Packing


class Layer:
    """One decoder layer on the weights of the module that PEFT may have adapted."""

    def __init__(self, layer: Any, config: Any) -> None:
        attention, feed_forward = layer.self_attn, layer.mlp
        self.heads = Heads(config.num_attention_heads, config.num_key_value_heads, attention.head_dim)
        self.qkv = Linear(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o = Linear(attention.o_proj)
        self.gate, self.up, self.down = (
            Linear(module) for module in (feed_forward.gate_proj, feed_forward.up_proj, feed_forward.down_proj)
        )
        self.before_attention, self.before_feed_forward = layer.input_layernorm, layer.post_attention_layernorm

    def __call__(
        self,
        hidden: Tensor,
        cos: Tensor,
        sin: Tensor,
        packing: Packing,
        given: Tensor | None = None,
        only: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """States after the layer, and its queries, keys and values before rotation.

        Args:
            hidden: (N, d).
            cos: (n_given + N, 1, d_head), as is `sin`.
            sin: See `cos`.
            packing: Which rows see which.
            given: Queries, keys and values of the rows that were read before, (n_given, width).
            only: Rows whose states are wanted, where not all are: the others serve as keys and values alone.
        """
        norm = self.before_attention
        qkv = self.qkv(rms_norm(hidden, norm.weight, norm.variance_epsilon))
        mixed = packed_attention(qkv if given is None else torch.cat([given, qkv]), cos, sin, packing, self.heads)
        if only is not None:
            hidden, mixed = hidden.index_select(0, only), mixed.index_select(0, only)
        hidden = hidden + self.o(mixed)
        norm = self.before_feed_forward
        x = rms_norm(hidden, norm.weight, norm.variance_epsilon)
        return hidden + self.down(gated_unit(self.gate(x), self.up(x))), qkv


class Linear:
    """One or more linear layers with a common input, as one product: frozen weights, LoRA factors where PEFT put them.

    With several layers, their A are stacked and their B stand on a block diagonal: (x A^T) B^T is what each gives.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self.modules = modules
        bases = [cast(nn.Linear, getattr(module, "base_layer", module)) for module in modules]
        self.weight = _weights(bases)
        self.bias = _bias(bases)
        self.adapted = [hasattr(module, "lora_A") for module in modules]
        self.d_outs = [base.out_features for base in bases]

    def __call__(self, x: Tensor) -> Tensor:
        if not any(self.adapted):
            return frozen_linear(x, self.weight, self.bias)
        parts = [module for module, adapted in zip(self.modules, self.adapted, strict=True) if adapted]
        up = self._up(x.dtype)
        if not any(self._dropout(part) for part in parts):
            down = torch.cat([part.lora_A["default"].weight for part in parts])  # type: ignore[index,union-attr]
            return adapted_linear(x, self.weight, self.bias, down.to(x.dtype), up)
        # Each layer drops inputs of its own, as PEFT does.
        narrow = [
            functional.linear(
                functional.dropout(x, self._dropout(part)),
                part.lora_A["default"].weight.to(x.dtype),  # type: ignore[index,union-attr]
            )
            for part in parts
        ]
        return frozen_linear(x, self.weight, self.bias) + functional.linear(torch.cat(narrow, -1), up)

    def _up(self, dtype: torch.dtype) -> Tensor:
        """B times alpha / rank of all adapted layers, (sum of d_out, sum of ranks)."""
        blocks: list[Tensor] = []
        for module, adapted, d_out in zip(self.modules, self.adapted, self.d_outs, strict=True):
            if adapted:
                lora: Any = module
                blocks.append(lora.lora_B["default"].weight * lora.scaling["default"])
            else:
                blocks.append(torch.zeros(d_out, 0))
        return (blocks[0] if len(blocks) == 1 else torch.block_diag(*blocks)).to(dtype)  # type: ignore[no-untyped-call]

    @staticmethod
    def _dropout(module: Any) -> float:
        """Probability with which an input of the adapter is dropped now; 0 in eval mode."""
        dropout = module.lora_dropout["default"]
        return float(dropout.p) if isinstance(dropout, nn.Dropout) and dropout.training else 0.0


def _bias(bases: list[nn.Linear]) -> Tensor | None:
    """The layers' biases side by side, zero for a layer without; None when no layer has one."""
    known = [base.bias.detach() for base in bases if base.bias is not None]
    if not known:
        return None
    each = [known[0].new_zeros(base.out_features) if base.bias is None else base.bias.detach() for base in bases]
    return torch.cat(each)


def _weights(bases: list[nn.Linear]) -> Callable[[], Tensor]:
    """Gives the (sum of d_out, d_in) matrix of the layers: kept as one for plain weights, dequantised for 4 bits."""
    if hasattr(bases[0].weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        def dequantised() -> Tensor:
            each = [dequantize_4bit(base.weight, cast(Any, base.weight).quant_state) for base in bases]
            return each[0] if len(each) == 1 else torch.cat(each)

        return dequantised
    if len(bases) == 1:
        (only,) = bases
        return lambda: only.weight
    fused = torch.cat([base.weight.detach() for base in bases])
    # The modules become views of the common matrix, so that it costs no memory.
    for base, part in zip(bases, torch.split(fused, [base.out_features for base in bases]), strict=True):
        base.weight.data = part
    return lambda: fused
