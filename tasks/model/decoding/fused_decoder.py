"""Batched greedy decoding for Llama-shaped models: fewer, larger products and one copy of what prompts share.

Computes what the model's own forward computes, from the weights of the same modules, LoRA factors included (unmerged:
in bfloat16 a merge would round small updates away). It knows nothing of text. `open_decoder` takes it for the models
that it knows, and `plain_decoder.py` for all others.

Why not the stock forward: per token it copies all keys and values of every row to append one column, repeats key
heads for the query heads, and holds the shared prefix once per row. Measured: docs/decisions/0007, 0022 and 0041.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tasks.model.decoding.decoder import Decoder, Ids, has_plain_layers, language_model
from tasks.model.decoding.fused_reading import FusedModel, FusedReading
from tasks.model.decoding.kernel_reading import KernelReading
from tasks.model.decoding.plain_decoder import PlainDecoder
from tasks.model.decoding.torch_reading import TorchReading

FUSABLE = ("llama", "mistral", "qwen2")
"""`model_type`s whose decoder layer is what `FusedLayer` computes."""
_STEADY_ROPE = ("default", "linear", "llama3")
"""Rotary embeddings whose angles do not depend on the length of the text."""


def is_fusable(model: nn.Module) -> bool:
    """Does `FusedDecoder` compute exactly what this model does?"""
    whole = language_model(model)
    config = whole.config
    layer_types = getattr(config, "layer_types", None) or ["full_attention"]
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in FUSABLE
        and config.hidden_act == "silu"
        and set(layer_types) == {"full_attention"}
        and not (config.model_type == "mistral" and getattr(config, "sliding_window", None))
        and rope.get("rope_type", "default") in _STEADY_ROPE
        and all(hasattr(module, "weight") for module in (whole.get_output_embeddings(), whole.model.norm))
        and (whole.device.type == "cpu" or not getattr(whole, "is_quantized", False))
        and has_plain_layers(model)
    )


class FusedDecoder(FusedModel):
    """A fused model that reads prompts; the prefix is read when it is made."""

    def __init__(self, model: nn.Module, prefix: Ids, *, keep_weights: bool = False) -> None:
        super().__init__(model, keep_weights=keep_weights)
        self.serves_threads = self.device.type == "cpu"
        if prefix:
            reading = self._reading([prefix])
            if isinstance(reading, KernelReading) and self.by_kernels is not None:
                self.by_kernels.prefix, self.by_kernels.n_prefix = reading.cache, len(prefix)
            elif isinstance(reading, TorchReading):
                self.prefix = [
                    (keys[0, :, : len(prefix)], values[0, :, : len(prefix)]) for keys, values in reading.cache
                ]
            self.n_prefix = len(prefix)

    def read(self, prompts: Sequence[Ids], *, room: int) -> FusedReading:
        """Read the prompts less the prefix they begin with; room is made as it is needed."""
        return self._reading([prompt[self.n_prefix :] for prompt in prompts])

    def _reading(self, suffixes: Sequence[Ids]) -> FusedReading:
        return TorchReading(self, suffixes) if self.by_kernels is None else KernelReading(self, suffixes)


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
