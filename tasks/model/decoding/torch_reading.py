"""A batch of prompts through the fused layers by torch alone: any device, any type of numbers.

Made by tasks/model/decoding/fused_decoder.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tasks.model.decoding.fused_layer import FusedLayer, KeysValues
from tasks.model.decoding.fused_reading import FusedReading

BLOCK = 16
"""Columns by which the cache grows."""


class TorchReading(FusedReading):
    """Its cache holds keys and values (rows, kv_heads, columns, d) per layer.

    It grows by `BLOCK` columns, and a token attends to all of it, free columns hidden by the mask: the library
    multiplies whole caches as they lie, while it would copy a part of one for each token.
    """

    cache: list[KeysValues]

    def _begin(self, n_columns: int) -> None:
        self.cache = [self._empty(layer, n_columns) for layer in self.decoder.layers]

    def _read(self, ids: Tensor, rows: range, start: int) -> Tensor:
        group = slice(rows.start, rows.stop)
        kept = [(keys[group, :, start:], values[group, :, start:]) for keys, values in self.cache]
        return self._through_layers(ids, self.pads[group], start, keep=kept)[:, -1]

    def _look_ahead(self, ids: Tensor, rows: Sequence[int]) -> Tensor:
        places = torch.tensor(rows, device=self.decoder.device)
        return self._through_layers(ids, self.pads[places], self.used, cached=places)

    def _append(self, tokens: Tensor) -> Tensor:
        decoder = self.decoder
        self._make_room(self.used + 1)
        column = torch.full((1,), self.used, device=decoder.device)
        angles = self._angles(column, self.pads)
        mask = _mask(column, torch.arange(self.cache[0][0].shape[2], device=decoder.device), self.pads, decoder.dtype)
        hidden = functional.embedding(tokens[:, None], decoder.embedding)
        for number, layer in enumerate(decoder.layers):
            prefix = decoder.prefix[number] if decoder.prefix else None
            hidden = layer.step(hidden, angles, mask, self.cache[number], prefix, self.used)
        return hidden[:, -1]

    def _move(self, sources: Tensor, gaps: Tensor) -> None:
        for layer in self.cache:
            for held in layer:
                held[gaps, :, : self.used] = held[sources, :, : self.used]

    def _through_layers(
        self,
        ids: Tensor,
        pads: Tensor,
        start: int,
        *,
        cached: Tensor | None = None,
        keep: Sequence[KeysValues] | None = None,
    ) -> Tensor:
        """States (rows, columns, d) before the last norm of columns from `start` on, or of the last column with `keep`.

        Args:
            ids: (rows, columns).
            pads: Columns of each row that hold nothing.
            start: Number of the first column.
            cached: Rows of the cache whose columns are attended to as well.
            keep: Where to put the keys and values of these columns, per layer.
        """
        decoder, (n_rows, n_columns) = self.decoder, ids.shape
        columns = torch.arange(start, start + n_columns, device=decoder.device)
        angles = self._angles(columns, pads)
        n_cached = 0 if cached is None else self.used
        seen = torch.arange(start - n_cached, start + n_columns, device=decoder.device)
        mask = functional.pad(_mask(columns, seen, pads, decoder.dtype), (decoder.n_prefix, 0))
        hidden = functional.embedding(ids, decoder.embedding)
        for number, layer in enumerate(decoder.layers):
            past = []
            if decoder.prefix:
                keys, values = decoder.prefix[number]
                past.append((keys.expand(n_rows, -1, -1, -1), values.expand(n_rows, -1, -1, -1)))
            if cached is not None:
                keys, values = self.cache[number]
                past.append((keys[cached, :, : self.used], values[cached, :, : self.used]))
            last = keep is not None and number + 1 == len(decoder.layers)
            hidden, found = layer.read(hidden, angles, mask, past, last=last)
            if keep is not None:
                for held, new in zip(keep[number], found, strict=True):
                    held.copy_(new)
        return hidden

    def _angles(self, columns: Tensor, pads: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (rows, columns, 1, d) of these columns' positions."""
        cos, sin = self.decoder.angles((self.decoder.n_prefix + columns[None] - pads[:, None]).clamp_(min=0))
        return cos[:, :, None], sin[:, :, None]

    def _empty(self, layer: FusedLayer, n_columns: int) -> KeysValues:
        """Room for keys and values; zeros, since even values without attention must be finite."""
        shape = (self.n_rows, layer.n_kv, n_columns, layer.d)
        keys, values = (torch.zeros(shape, dtype=self.decoder.dtype, device=self.decoder.device) for _ in range(2))
        return keys, values

    def _make_room(self, n_columns: int) -> None:
        if n_columns <= self.cache[0][0].shape[2]:
            return
        for number, layer in enumerate(self.decoder.layers):
            grown = self._empty(layer, math.ceil(n_columns / BLOCK) * BLOCK)
            for new, old in zip(grown, self.cache[number], strict=True):
                new[:, :, : self.used] = old[: self.n_rows, :, : self.used]
            self.cache[number] = grown


def _mask(columns: Tensor, seen: Tensor, pads: Tensor, dtype: torch.dtype) -> Tensor:
    """What queries of `columns` add to their scores of the columns `seen`: (rows, columns, seen)."""
    # Padding attends to nothing that counts: its numbers are finite and never read.
    hidden = (seen < pads[:, None])[:, None] | (seen > columns[:, None])
    mask = torch.zeros(hidden.shape, dtype=dtype, device=columns.device)
    return mask.masked_fill_(hidden, torch.finfo(dtype).min)
