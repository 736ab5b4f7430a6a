"""Batched greedy decoding for Llama-shaped models: fewer, larger products and one copy of what prompts share.

Computes what the model's own forward computes, from the weights of the same modules, LoRA factors included (unmerged:
in bfloat16 a merge would round small updates away). `open_decoder` takes it for the models that it knows, and
`plain_decoder.py` for all others.

Why not the stock forward: per token it copies all keys and values of every row to append one column, repeats key
heads for the query heads, and holds the shared prefix once per row. Measured: docs/decisions/generation.md.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.model.decoding.decoder import Decoder, Ids, has_plain_layers, language_model
from tasks.model.decoding.fused_layer import FusedLayer, KeysValues
from tasks.model.decoding.fused_reading import FusedModel, FusedReading
from tasks.model.decoding.kernel_layers import KernelCache, NewColumns, largest_places
from tasks.model.decoding.plain_decoder import PlainDecoder
from tasks.model.label_likelihood import in_groups_of_equal, trie_logs

FUSABLE = ("llama", "mistral", "qwen2")
"""`model_type`s whose decoder layer is what `FusedLayer` computes."""
_STEADY_ROPE = ("default", "linear", "llama3")
"""Rotary embeddings whose angles do not depend on the length of the text."""
REPEATED_TOKENS = 4096
"""Tokens whose keys and values are held at most, when a context is repeated for the labels that continue it."""
BLOCK = 16
"""Columns by which the cache grows."""


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

    def label_logs(
        self,
        contexts: Sequence[Ids],
        memories: Sequence[list[KeysValues]],
        labels: Sequence[tuple[tuple[int, ...], ...]],
    ) -> list[list[float]]:
        """From the keys and values of the answer's own pass: only its last token is read again.

        Several rows read one node of the trie after another. A single row would read each node alone: it is repeated
        for some labels at a time instead, which are read at once.
        """

        def resume(rows: Sequence[int]) -> FusedReading:
            lengths = [len(contexts[row]) - 1 - self.n_prefix for row in rows]
            kind = TorchReading if self.by_kernels is None else KernelReading
            reading = kind.resumed(self, [memories[row] for row in rows], lengths)
            reading.append(torch.tensor([contexts[row][-1] for row in rows], device=self.device))
            return reading

        def score(rows: list[int]) -> Tensor:
            if len(rows) > 1:
                return trie_logs(resume(rows), labels[rows[0]])
            every, size = labels[rows[0]], max(1, REPEATED_TOKENS // len(contexts[rows[0]]))
            parts = [every[start : start + size] for start in range(0, len(every), size)]
            logs = [each for part in parts for each in resume(rows * len(part)).answer_logs(part)]
            return torch.tensor([logs], dtype=torch.float64)

        return in_groups_of_equal(labels, score)

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


class KernelReading(FusedReading):
    """Columns of the cache: [padding | prompt less prefix | appended | free]; the prefix lies before, once for all."""

    cache: KernelCache

    def _largest(self, logits: Tensor) -> Tensor:
        return largest_places(logits)

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

    def memory(self, row: int) -> list[KeysValues]:
        return self.cache.columns(row, int(self.pads[row]), self.used)

    def _put(self, row: int, memory: list[KeysValues], length: int) -> None:
        self.cache.put(row, memory, self.used - length, self.used)

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

    def memory(self, row: int) -> list[KeysValues]:
        columns = slice(int(self.pads[row]), self.used)
        return [(keys[row, :, columns].clone(), values[row, :, columns].clone()) for keys, values in self.cache]

    def _put(self, row: int, memory: list[KeysValues], length: int) -> None:
        for held, new in zip(self.cache, memory, strict=True):
            for into, given in zip(held, new, strict=True):
                into[row, :, self.used - length : self.used] = given[:, :length]

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
