"""From a batch to the loss of each supervised token, for decoders whose layers compute exactly what `Layer` does.

A layer uses `tasks/train/fast/kernels.py` on the model's own weights. It reads the modules that PEFT created, so the
adapter is saved, loaded and served like any other. Selected by tasks/train/forward.py.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tasks.model.decoding.decoder import has_plain_layers, language_model
from tasks.train.batches import Batch, backward_through, has_steady_positions, shared_prefix
from tasks.train.fast.attention import Heads, Packing, pack, pack_prefix, packed_attention
from tasks.train.fast.kernels import adapted_linear, frozen_linear, gated_unit, rms_norm, token_losses
from tasks.train.model_shapes import FAST_TYPES


class Layer:
    """One decoder layer, on the weights of a module that PEFT may have adapted."""

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
            only: Rows to compute the states of; None for all. The others serve as keys and values only.
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
    """One or more linear layers with a common input, as one product: frozen weights, plus LoRA factors if adapted.

    For several layers, their A are stacked and their B form a block diagonal, so (x A^T) B^T has each layer's result.
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
        # Each layer has its own dropout, as in PEFT.
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
        """Current dropout probability of the adapter's inputs; 0 in eval mode."""
        dropout = module.lora_dropout["default"]
        return float(dropout.p) if isinstance(dropout, nn.Dropout) and dropout.training else 0.0


def _bias(bases: list[nn.Linear]) -> Tensor | None:
    """The layers' biases, concatenated, zero for a layer without one; None when no layer has one."""
    known = [base.bias.detach() for base in bases if base.bias is not None]
    if not known:
        return None
    each = [known[0].new_zeros(base.out_features) if base.bias is None else base.bias.detach() for base in bases]
    return torch.cat(each)


def _weights(bases: list[nn.Linear]) -> Callable[[], Tensor]:
    """A function that returns the layers' (sum of d_out, d_in) matrix: joined once, or dequantised from 4 bits."""
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
    # The modules become views of the joint matrix, so it needs no extra memory.
    for base, part in zip(bases, torch.split(fused, [base.out_features for base in bases]), strict=True):
        base.weight.data = part
    return lambda: fused


def is_fast(model: nn.Module) -> bool:
    """Whether the model is an adapter on a decoder, on a CPU, that the fast path computes exactly."""
    config: Any = model.config
    head = language_model(model).get_output_embeddings()
    return (
        hasattr(model, "peft_config")
        and config.model_type in FAST_TYPES
        and config.hidden_act == "silu"
        and not getattr(config, "attention_dropout", 0.0)
        and not getattr(config, "mlp_bias", False)
        and getattr(config, "sliding_window", None) is None
        and has_steady_positions(config)
        and not any(_is_variant(module) for module in model.modules())
        and has_plain_layers(model)
        and head.bias is None
        and head.weight.device.type == "cpu"
    )


def _is_variant(module: nn.Module) -> bool:
    """Whether it is an adapted layer that computes more than `W x + scale * B A x`, as DoRA does."""
    biases: Any = getattr(module, "lora_bias", {})
    return bool(getattr(module, "lora_variant", {})) or any(biases.values())


class FastDecoder:
    """A decoder that runs `Layer` on the model's own weights, without padding.

    Args:
        model: One for which `is_fast` is true.
        recompute: Gradient checkpointing.
    """

    def __init__(self, model: nn.Module, *, recompute: bool) -> None:
        whole = language_model(model)
        trunk = whole.model
        self.config = whole.config
        self.embedding: Tensor = trunk.embed_tokens.weight
        self.head: Tensor = whole.get_output_embeddings().weight
        self.norm = trunk.norm
        self.rotary = trunk.rotary_emb
        self.layers = [Layer(layer, self.config) for layer in trunk.layers]
        self.recompute = recompute
        self._n_prefix = 0
        self._given: list[Tensor] = []

    @staticmethod
    def layers_of(model: nn.Module) -> Sequence[nn.Module]:
        """The model's own decoder layers, the lowest first."""
        layers: Sequence[nn.Module] = language_model(model).model.layers
        return layers

    @staticmethod
    def embedding_of(model: nn.Module) -> Tensor:
        """The model's own token embedding, (vocabulary, d)."""
        weight: Tensor = language_model(model).model.embed_tokens.weight
        return weight

    def __call__(self, batch: Batch) -> Tensor:
        """Losses of the supervised tokens (n,)."""
        packing = pack(batch, n_prefix=self._n_prefix, given=bool(self._given))
        hidden = self._run(self._embed(batch, packing), packing, given=self._given, layers=_left(batch))
        normal = rms_norm(hidden, self.norm.weight, self.norm.variance_epsilon)
        return token_losses(normal, self.head, batch.targets)

    @contextmanager
    def sharing(self, batches: Sequence[Batch]) -> Iterator[None]:
        """Within the block, compute the prefix that all these batches share once for all.

        Losses and gradients are the same as without it. A single batch has the prefix among its rows. Several batches
        reuse its queries, keys and values; their gradients are collected and go through the prefix at the end.
        """
        batches = [batch for batch in batches if len(batch.targets)]
        n_prefix = shared_prefix(batches)
        read: list[Tensor] = []
        if n_prefix and len(batches) > 1:
            packing = pack_prefix(batches[0], n_prefix)
            self._run(self._embed(batches[0], packing), packing, read=read, layers=_left(batches[0]))
            self._given = [qkv.detach().requires_grad_(qkv.requires_grad) for qkv in read]
        self._n_prefix = n_prefix
        given = self._given
        try:
            yield
        finally:
            self._n_prefix, self._given = 0, []
        backward_through(read, given)

    def states_after(self, batch: Batch, n_layers: int) -> Tensor:
        """Output of the lowest layers (batch, seq, d) at all positions that a loss depends on, zero elsewhere."""
        packing = pack(batch, n_prefix=self._n_prefix, given=bool(self._given))
        inputs = self._embed(batch, packing)
        rows = self._run(inputs, packing, given=self._given, layers=slice(0, n_layers))
        states = rows.new_zeros(batch.ids.numel(), rows.shape[-1])
        states = states.index_copy_(0, packing.source, rows).view(*batch.ids.shape, -1)
        if self._n_prefix and not self._given:
            states[:, : self._n_prefix] = rows[: self._n_prefix]
        return states

    def _embed(self, batch: Batch, packing: Packing) -> Tensor:
        """The rows as they enter the lowest layer that remains to be computed."""
        if batch.precomputed is not None:
            return batch.precomputed.states.flatten(0, 1).index_select(0, packing.source)
        return functional.embedding(batch.ids.reshape(-1).index_select(0, packing.source), self.embedding)

    def _run(
        self,
        hidden: Tensor,
        packing: Packing,
        *,
        layers: slice,
        given: Sequence[Tensor] = (),
        read: list[Tensor] | None = None,
    ) -> Tensor:
        """States (N, d) after these layers; after the last layer (n, d), for the supervised positions only.

        Args:
            hidden: (N, d), the rows before these layers.
            packing: Where each row belongs.
            layers: The layers to run.
            given: The prefix's queries, keys and values for each of these layers; empty when it is among the rows.
            read: Collects each layer's queries, keys and values.
        """
        cos, sin = (angles[0, :, None] for angles in self.rotary(hidden, position_ids=packing.positions[None]))
        for number, layer in enumerate(self.layers[layers]):
            only = packing.chosen if layer is self.layers[-1] else None
            inputs = (hidden, cos, sin, packing, given[number] if given else None, only)
            if self.recompute and torch.is_grad_enabled():
                hidden, qkv = checkpoint(layer, *inputs, use_reentrant=False)
            else:
                hidden, qkv = layer(*inputs)
            if read is not None:
                read.append(qkv)
        return hidden


def _left(batch: Batch) -> slice:
    """The layers that remain to be computed."""
    return slice(batch.precomputed.n_layers if batch.precomputed else 0, None)
