"""From a batch to the loss of each supervised token: a fast path for Llama-shaped decoders on a CPU, else the model.

It knows nothing of optimisers and steps. Used by tasks/train/engine.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.model.decoder import language_model
from tasks.train.batches import Batch
from tasks.train.fast.decoder import FastDecoder, is_fast

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


def plain_losses(model: nn.Module, *, dtype: torch.dtype, recompute: bool) -> Losses:
    """Losses through the model's own forward, whatever its architecture; logits only where a row of the batch has loss.

    With float32 weights and bfloat16 arithmetic (`method: full`) matrix products run in bfloat16.
    """
    whole = language_model(model)
    if recompute:
        _keep_layer_inputs_only(whole)
    mixed = dtype != torch.float32

    def losses(batch: Batch) -> Tensor:
        device = whole.device
        columns, place = torch.unique(batch.columns, return_inverse=True)
        # No mask of padding: it lies on the right, where causal attention does not look.
        with torch.autocast(device.type, dtype=dtype if mixed else torch.bfloat16, enabled=mixed):
            logits = model(input_ids=batch.ids.to(device), logits_to_keep=columns.to(device), use_cache=False).logits
        chosen = logits[batch.rows.to(device), place.to(device)].float()
        return functional.cross_entropy(chosen, batch.targets.to(device), reduction="none")

    return losses


def _keep_layer_inputs_only(whole: Any) -> None:
    """Switch gradient checkpointing on, under the name that this version of transformers has for it."""
    if hasattr(whole, "activation_checkpointing_enable"):
        whole.activation_checkpointing_enable({"use_reentrant": False})
    else:
        whole.gradient_checkpointing_enable({"use_reentrant": False})
