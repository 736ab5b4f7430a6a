"""The decoder for a model: the fast one for Llama-shaped models, the model's own forward for all others."""

from __future__ import annotations

from torch import nn

from tasks.model.decoding.decoder import Decoder, Ids
from tasks.model.decoding.fused_decoder import FusedDecoder, is_fusable
from tasks.model.decoding.plain_decoder import PlainDecoder


def open_decoder(model: nn.Module, prefix: Ids, *, keep_weights: bool = False) -> Decoder:
    """The fastest decoder that computes this model exactly.

    Args:
        model: As `tasks.model.adapter.load_trained` gives it; its weights are regrouped, so it must not
            train on.
        prefix: Tokens that every prompt begins with, read once. Each prompt must be longer.
        keep_weights: The model's weights serve others too. Else they may be given up for a faster layout of them, and
            the model cannot be used without the decoder.
    """
    return FusedDecoder(model, prefix, keep_weights=keep_weights) if is_fusable(model) else PlainDecoder(model)
