"""From a batch to the loss of each supervised token: a fast path for Llama-shaped decoders on a CPU, else the model.

It knows nothing of optimisers and steps. Used by tasks/train/engine.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from tasks.train.batches import Batch
from tasks.train.fast.decoder import FastDecoder, is_fast
from tasks.train.plain import PlainModel


class Losses(Protocol):
    """What a step asks of a model."""

    def __call__(self, batch: Batch) -> Tensor:
        """Cross-entropy of each supervised token of the batch, nats, float32 (n,)."""

    def sharing(self, batches: Sequence[Batch]) -> AbstractContextManager[None]:
        """Inside, what all these batches begin with is computed once; on leaving, its gradient is complete.

        Only these batches may be asked for inside. Each must have gone backward before the end.
        """


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


def plain_losses(model: nn.Module, *, dtype: torch.dtype, recompute: bool, share: bool = True) -> Losses:
    """Losses through the model's own forward, whatever its architecture.

    Args:
        model: As `tasks.model.adapter.open_for_training` gives it.
        dtype: Of the arithmetic.
        recompute: Gradient checkpointing.
        share: Read a shared prefix once. False where every process must go through the model equally often.
    """
    return PlainModel(model, dtype=dtype, recompute=recompute, share=share)
