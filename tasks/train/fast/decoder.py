"""From a batch to the loss of each supervised token, for decoders whose layer is exactly `tasks/train/fast/layers.py`.

It knows nothing of optimisers and steps. Chosen by tasks/train/forward.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tasks.model.decoding.decoder import has_plain_layers, language_model
from tasks.train.batches import Batch
from tasks.train.fast.kernels import rms_norm, token_losses
from tasks.train.fast.layers import Layer
from tasks.train.fast.packing import Packing, pack, pack_prefix
from tasks.train.prefix import backward_through, has_steady_positions, shared_prefix

FAST_TYPES = ("llama", "mistral", "qwen2")
"""`model_type`s whose decoder layer is exactly what `Layer` computes."""


def is_fast(model: nn.Module) -> bool:
    """Is the model an adapter on a decoder, on a CPU, that the fast path computes exactly?"""
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
        and head.bias is None
        and head.weight.device.type == "cpu"
        and has_plain_layers(model)
    )


def _is_variant(module: nn.Module) -> bool:
    """Is it an adapted layer that computes more than `W x + scale * B A x`, as DoRA does?"""
    biases: Any = getattr(module, "lora_bias", {})
    return bool(getattr(module, "lora_variant", {})) or any(biases.values())


class FastDecoder:
    """A decoder run through `tasks/train/fast/layers.py` on the model's own weights, without padding.

    Args:
        model: As `is_fast` approves it.
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
        """The model's own decoder layers, from below."""
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
        """Inside, the prefix that all these batches share is computed once for them all.

        Losses and gradients are those without it. One batch takes the prefix among its rows. Several find its queries,
        keys and values given; the gradient for those is collected, and goes through the prefix at the end.
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
        """The rows as they enter the lowest layer that is left to compute."""
        if batch.reached is not None:
            return batch.reached.states.flatten(0, 1).index_select(0, packing.source)
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
        """States (N, d) after these layers; after the last layer (n, d), of the supervised positions alone.

        Args:
            hidden: (N, d), the rows before these layers.
            packing: Their places.
            layers: Which to run.
            given: For each of these layers queries, keys and values of the prefix; none when it is among the rows.
            read: Takes each layer's queries, keys and values.
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
    """The layers that are left to compute."""
    return slice(batch.reached.n_layers if batch.reached else 0, None)
