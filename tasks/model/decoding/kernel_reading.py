"""A batch of prompts on a CPU, in bfloat16, through `KernelLayers`.

Made by tasks/model/decoding/fused_decoder.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tasks.model.decoding.fused_reading import FusedReading
from tasks.model.decoding.kernel_calls import largest_places
from tasks.model.decoding.kernel_layers import KernelCache, NewColumns


class KernelReading(FusedReading):
    """Columns of the cache: [padding | prompt less prefix | appended | free]; the prefix lies before, once for all."""

    cache: KernelCache

    def next_tokens(self) -> Tensor:
        return largest_places(self.next_logits())

    def _begin(self, n_columns: int) -> None:
        self.cache = KernelCache(self.decoder.layers, self.n_rows, n_columns)

    def _read(self, ids: Tensor, rows: range, start: int) -> Tensor:
        return self._through_layers(ids, list(rows), start, last=True)[:, -1]

    def _look_ahead(self, ids: Tensor, rows: Sequence[int]) -> Tensor:
        self.cache.make_room(self.used + ids.shape[1], self.n_rows)
        return self._through_layers(ids, rows, self.used, last=False)

    def _append(self, tokens: Tensor) -> Tensor:
        self.cache.make_room(self.used + 1, self.n_rows)
        return self._through_layers(tokens[:, None], range(self.n_rows), self.used, last=True)[:, -1]

    def _move(self, sources: Tensor, gaps: Tensor) -> None:
        self.cache.move(sources, gaps)

    def _through_layers(self, ids: Tensor, rows: Sequence[int], start: int, *, last: bool) -> Tensor:
        decoder, places = self.decoder, torch.tensor(rows)
        pads = self.pads[places]
        columns = torch.arange(start, start + ids.shape[1])
        angles = decoder.angles((decoder.n_prefix + columns[None] - pads[:, None]).clamp_(min=0))
        hidden = functional.embedding(ids, decoder.embedding)
        layers = decoder.by_kernels
        if layers is None:
            raise ValueError("this decoder computes without kernels")
        return layers.after(hidden, NewColumns(angles, pads, places, start), self.cache, last=last)
