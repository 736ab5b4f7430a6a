"""The weights of a Llama-shaped model as fused layers, with the keys and values of a prefix that all prompts share.

It reads no prompts: tasks/model/decoding/fused_decoder.py does, through the readings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tasks.model.decoding.decoder import language_model
from tasks.model.decoding.fused_layer import FusedLayer, KeysValues
from tasks.model.decoding.fused_weights import JoinedLinear, Norm
from tasks.model.decoding.kernel_layers import KernelLayers, kernels_know


class FusedModel:
    """A model, and the prefix once it was read.

    Attributes:
        by_kernels: All layers in machine code of our own, with the prefix; None where torch alone computes.
        prefix: Keys and values (kv_heads, prefix, d) per layer; empty without a prefix, and with `by_kernels`.
    """

    def __init__(self, model: nn.Module, *, keep_weights: bool = False) -> None:
        whole = language_model(model)
        self.device: torch.device = whole.device
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

    def _turns_whole_heads(self) -> bool:
        cos, _ = self.angles(torch.zeros(1, 1, dtype=torch.int64, device=self.device))
        return bool(cos.shape[-1] == self.layers[0].d)

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (rows, columns, d) of token positions (rows, columns)."""
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        cos, sin = self.rotary(like, position_ids=positions)
        return cos, sin
