"""From a batch to the loss of each supervised token: a fast path for Llama-shaped decoders on a CPU, else the model.

The fast path reads the weights of the very modules that PEFT made, so that what it trains is saved, loaded and served
as any other adapter. It knows nothing of optimisers and steps. Used by tasks/train/engine.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tasks.train.batches import Batch
from tasks.train.kernels import (
    adapted_linear,
    causal_attention,
    frozen_linear,
    gated_unit,
    rms_norm,
    token_losses,
)

FAST_TYPES = ("llama", "mistral", "qwen2")
"""`model_type`s whose decoder layer is exactly what `_Layer` computes."""

Losses = Callable[[Batch], Tensor]
"""Cross-entropy of each supervised token of a batch, nats, float32 (n,)."""


def losses_of(model: nn.Module, *, dtype: torch.dtype, recompute: bool) -> Losses:
    """The way from batch to losses that is fastest here and exact.

    Args:
        model: As `tasks.model.adapter.open_for_training` gives it.
        dtype: Of the arithmetic.
        recompute: Gradient checkpointing: keep each layer's input only and run the layer again in the backward.
    """
    if is_fast(model):
        return FastDecoder(model, recompute=recompute)
    return plain_losses(model, dtype=dtype, recompute=recompute)


def is_fast(model: nn.Module) -> bool:
    """Is the model an adapter on a decoder, on a CPU, that the fast path computes exactly?"""
    config: Any = model.config
    head = decoder_of(model).get_output_embeddings()
    return (
        hasattr(model, "peft_config")
        and config.model_type in FAST_TYPES
        and config.hidden_act == "silu"
        and not getattr(config, "attention_dropout", 0.0)
        and not getattr(config, "mlp_bias", False)
        and getattr(config, "sliding_window", None) is None
        and head.bias is None
        and head.weight.device.type == "cpu"
    )


def decoder_of(model: nn.Module) -> Any:
    """The causal language model below PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore[operator]


def plain_losses(model: nn.Module, *, dtype: torch.dtype, recompute: bool) -> Losses:
    """Losses through the model's own forward, whatever its architecture; logits only where a row of the batch has loss.

    With float32 weights and bfloat16 arithmetic (`method: full`) matrix products run in bfloat16.
    """
    language_model = decoder_of(model)
    if recompute:
        _keep_layer_inputs_only(language_model)
    mixed = dtype != torch.float32

    def losses(batch: Batch) -> Tensor:
        device = language_model.device
        columns, place = torch.unique(batch.columns, return_inverse=True)
        # No mask of padding: it lies on the right, where causal attention does not look.
        with torch.autocast(device.type, dtype=dtype if mixed else torch.bfloat16, enabled=mixed):
            logits = model(input_ids=batch.ids.to(device), logits_to_keep=columns.to(device), use_cache=False).logits
        chosen = logits[batch.rows.to(device), place.to(device)].float()
        return functional.cross_entropy(chosen, batch.targets.to(device), reduction="none")

    return losses


def _keep_layer_inputs_only(language_model: Any) -> None:
    """Switch gradient checkpointing on, under the name that this version of transformers has for it."""
    if hasattr(language_model, "activation_checkpointing_enable"):
        language_model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        language_model.gradient_checkpointing_enable({"use_reentrant": False})


class FastDecoder:
    """A decoder run through `tasks.train.kernels` on the model's own weights."""

    def __init__(self, model: nn.Module, *, recompute: bool) -> None:
        language_model = decoder_of(model)
        trunk = language_model.model
        self.config = language_model.config
        self.embedding: Tensor = trunk.embed_tokens.weight
        self.head: Tensor = language_model.get_output_embeddings().weight
        self.norm = trunk.norm
        self.rotary = trunk.rotary_emb
        self.layers = [_Layer(layer, self.config) for layer in trunk.layers]
        self.recompute = recompute

    def __call__(self, batch: Batch) -> Tensor:
        """Losses of the supervised tokens (n,)."""
        seq = batch.ids.shape[1]
        chosen = self.hidden_states(batch.ids).index_select(0, batch.rows * seq + batch.columns)
        normal = rms_norm(chosen, self.norm.weight, self.norm.variance_epsilon)
        return token_losses(normal, self.head, batch.targets)

    def hidden_states(self, ids: Tensor) -> Tensor:
        """States (batch * seq, d) of ids (batch, seq) before the last norm."""
        seq = ids.shape[1]
        hidden = functional.embedding(ids.reshape(-1), self.embedding)
        cos, sin = self.rotary(hidden, position_ids=torch.arange(seq)[None])
        mask = torch.full((seq, seq), float("-inf"), dtype=hidden.dtype).triu_(1)
        for layer in self.layers:
            if self.recompute and torch.is_grad_enabled():
                hidden = checkpoint(layer, hidden, cos[:, :, None], sin[:, :, None], mask, use_reentrant=False)
            else:
                hidden = layer(hidden, cos[:, :, None], sin[:, :, None], mask)
        return hidden


class _Layer:
    def __init__(self, layer: Any, config: Any) -> None:
        attention, feed_forward = layer.self_attn, layer.mlp
        self.d_head: int = attention.head_dim
        self.n_heads: int = config.num_attention_heads
        self.n_kv_heads: int = config.num_key_value_heads
        self.qkv = _Linear(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o = _Linear(attention.o_proj)
        self.gate, self.up, self.down = (
            _Linear(module) for module in (feed_forward.gate_proj, feed_forward.up_proj, feed_forward.down_proj)
        )
        self.before_attention, self.before_feed_forward = layer.input_layernorm, layer.post_attention_layernorm

    def __call__(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        norm = self.before_attention
        mixed = causal_attention(
            self.qkv(rms_norm(hidden, norm.weight, norm.variance_epsilon)),
            cos,
            sin,
            mask,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            d_head=self.d_head,
        )
        hidden = hidden + self.o(mixed)
        norm = self.before_feed_forward
        x = rms_norm(hidden, norm.weight, norm.variance_epsilon)
        return hidden + self.down(gated_unit(self.gate(x), self.up(x)))


class _Linear:
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
