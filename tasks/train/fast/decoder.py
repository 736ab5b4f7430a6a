"""From a batch to the loss of each supervised token, for decoders whose layer is exactly `tasks/train/fast/layers.py`.

It knows nothing of optimisers and steps. Chosen by tasks/train/forward.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tasks.model.decoder import has_plain_layers, language_model
from tasks.train.batches import Batch
from tasks.train.fast.kernels import rms_norm, token_losses
from tasks.train.fast.layers import Layer

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
        and head.bias is None
        and head.weight.device.type == "cpu"
        and has_plain_layers(model)
    )


class FastDecoder:
    """A decoder run through `tasks/train/fast/kernels.py` on the model's own weights."""

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
