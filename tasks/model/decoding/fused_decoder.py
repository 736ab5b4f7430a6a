"""Batched greedy decoding for Llama-shaped models: fewer, larger products and one copy of what prompts share.

Computes what the model's own forward computes, from the weights of the same modules, LoRA factors beside them
included (unmerged: in bfloat16 a merge would round small updates away). It knows nothing of text. Made by
tasks/model/decoding/decoder.py.

Why not the stock forward: per token it copies all keys and values of every row to append one column, repeats key
heads for the query heads, and holds the shared prefix once per row. Measured: docs/decisions/0007, 0022 and 0041.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tasks.model.decoding.decoder import Ids, has_plain_layers, language_model
from tasks.model.decoding.fused_layer import FusedLayer, KeysValues
from tasks.model.decoding.fused_reading import FusedReading
from tasks.model.decoding.fused_weights import JoinedLinear, Norm
from tasks.model.decoding.kernel_layers import KernelLayers, kernels_know
from tasks.model.decoding.kernel_reading import KernelReading
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


class FusedDecoder:
    """A model and the keys and values of the prefix.

    Attributes:
        by_kernels: All layers in machine code of our own, with the prefix; None where torch alone computes.
        prefix: Keys and values (kv_heads, prefix, d) per layer; empty without a prefix, and with `by_kernels`.
    """

    def __init__(self, model: nn.Module, prefix: Ids, *, keep_weights: bool = False) -> None:
        whole = language_model(model)
        self.device: torch.device = whole.device
        self.serves_threads = self.device.type == "cpu"
        self.embedding: Tensor = whole.get_input_embeddings().weight
        self.dtype = self.embedding.dtype
        self.head = JoinedLinear(whole.get_output_embeddings(), shared=True, keep=keep_weights)
        self.norm = Norm(whole.model.norm)
        self.rotary = whole.model.rotary_emb
        self.layers = [FusedLayer(layer, whole.config, keep=keep_weights) for layer in whole.model.layers]
        known = kernels_know(self.layers, self.dtype, self.device) and self._turns_whole_heads()
        self.by_kernels = KernelLayers(self.layers) if known else None
        self.n_prefix = 0
        self.prefix: list[KeysValues] = []
        if prefix:
            reading = self._reading([prefix])
            if isinstance(reading, KernelReading) and self.by_kernels is not None:
                self.by_kernels.prefix, self.by_kernels.n_prefix = reading.cache, len(prefix)
            elif isinstance(reading, TorchReading):
                self.prefix = [
                    (keys[0, :, : len(prefix)], values[0, :, : len(prefix)]) for keys, values in reading.cache
                ]
            self.n_prefix = len(prefix)

    def _turns_whole_heads(self) -> bool:
        cos, _ = self.angles(torch.zeros(1, 1, dtype=torch.int64, device=self.device))
        return bool(cos.shape[-1] == self.layers[0].d)

    def read(self, prompts: Sequence[Ids], *, room: int) -> FusedReading:
        """Read the prompts less the prefix they begin with; room is made as it is needed."""
        return self._reading([prompt[self.n_prefix :] for prompt in prompts])

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (rows, columns, d) of token positions (rows, columns)."""
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        cos, sin = self.rotary(like, position_ids=positions)
        return cos, sin

    def _reading(self, suffixes: Sequence[Ids]) -> FusedReading:
        return TorchReading(self, suffixes) if self.by_kernels is None else KernelReading(self, suffixes)
