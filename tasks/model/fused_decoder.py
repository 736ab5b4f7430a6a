"""Batched greedy decoding for Llama-shaped models: fewer, larger products and one copy of what prompts share.

Computes what the model's own forward computes, from the weights of the same modules, LoRA factors beside them
included (unmerged: in bfloat16 a merge would round small updates away). It knows nothing of text. Made by
tasks/model/decoder.py.

Why not the stock forward: per token it copies all keys and values of every row to append one column, repeats key
heads for the query heads, and holds the shared prefix once per row. Measured: docs/decisions/0007.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.model.decoder import Ids, has_plain_layers, language_model, left_padded
from tasks.model.fused_weights import JoinedLinear, Norm
from tasks.model.likelihood import means_per_row, token_nats

FUSABLE = ("llama", "mistral", "qwen2")
"""`model_type`s whose decoder layer is what `_Layer` computes."""
CACHED_TOKENS = 1024
"""Tokens that pass through all layers together on a CPU; measured best between 512 and 2048 for 576 channels."""
BLOCK = 16
"""Columns by which the cache grows."""
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
    """A model and the keys and values (kv_heads, prefix, d) of the prefix, per layer."""

    def __init__(self, model: nn.Module, prefix: Ids, *, keep_weights: bool = False) -> None:
        whole = language_model(model)
        self.device: torch.device = whole.device
        self.embedding: Tensor = whole.get_input_embeddings().weight
        self.dtype = self.embedding.dtype
        self.head = JoinedLinear(whole.get_output_embeddings(), shared=True, keep=keep_weights)
        self.norm = Norm(whole.model.norm)
        self.rotary = whole.model.rotary_emb
        self.layers = [_Layer(layer, whole.config, keep=keep_weights) for layer in whole.model.layers]
        self.n_prefix = 0
        self.prefix: list[tuple[Tensor, Tensor]] = []
        if prefix:
            reading = _Reading(self, [prefix])
            self.prefix = [(keys[0, :, : len(prefix)], values[0, :, : len(prefix)]) for keys, values in reading.cache]
            self.n_prefix = len(prefix)

    def read(self, prompts: Sequence[Ids], *, room: int) -> _Reading:
        """Read the prompts less the prefix they begin with; room is made as it is needed."""
        return _Reading(self, [prompt[self.n_prefix :] for prompt in prompts])

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (rows, columns, 1, d) of token positions (rows, columns)."""
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        cos, sin = self.rotary(like, position_ids=positions)
        return cos[:, :, None], sin[:, :, None]


class _Reading:
    """Columns of the cache: [padding | prompt less prefix | appended | free]; the prefix lies before, once for all.

    The cache grows by `BLOCK` columns, and a token attends to all of it, free columns hidden by the mask: the library
    multiplies whole caches as they lie, while it would copy a part of one for each token.
    """

    def __init__(self, decoder: FusedDecoder, suffixes: Sequence[Ids]) -> None:
        self.decoder = decoder
        ids, pads = left_padded(suffixes)
        self.n_rows = len(suffixes)
        self.pads = pads.to(decoder.device)
        self.used = 0
        self.cache = [layer.empty_cache(self.n_rows, 0, decoder) for layer in decoder.layers]
        self.last = self._forward(ids.to(decoder.device))[:, -1]
        self.used = ids.shape[1]

    def next_logits(self) -> Tensor:
        out: Tensor = self.decoder.head(self.decoder.norm(self.last))
        return out

    def answer_losses(self, answers: Sequence[Ids]) -> list[float]:
        lengths = [len(answer) for answer in answers]
        longest = max(lengths)
        device = self.decoder.device
        # Answers are padded on the right, behind everything they look at.
        ids = torch.tensor([[*answer, *([0] * (longest - len(answer)))] for answer in answers], device=device)
        before = torch.cat([self.last[:, None], self._forward(ids[:, :-1])], 1) if longest > 1 else self.last[:, None]
        real = torch.arange(longest, device=device)[None] < torch.tensor(lengths, device=device)[:, None]
        states = self.decoder.norm(before[real])
        return means_per_row(token_nats(states, ids[real], self.decoder.head), lengths)

    def append(self, tokens: Tensor) -> None:
        self.last = self._forward(tokens[:, None])[:, -1]
        self.used += 1

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Fill the gaps with rows from the end: a row that stays where it is costs nothing."""
        n_kept = len(rows)
        late = iter(row for row in rows if row >= n_kept)
        kept = set(rows)
        moves = [(next(late), gap) for gap in range(n_kept) if gap not in kept]
        order = list(range(n_kept))
        for source, gap in moves:
            order[gap] = source
        if moves:
            sources, gaps = (torch.tensor(side, device=self.decoder.device) for side in zip(*moves, strict=True))
            for keys, values in self.cache:
                for held in (keys, values):
                    held[gaps, :, : self.used] = held[sources, :, : self.used]
            for small in (self.pads, self.last):
                small[gaps] = small[sources]
        self.n_rows = n_kept
        self.pads, self.last = self.pads[:n_kept], self.last[:n_kept]
        return order

    def _forward(self, ids: Tensor) -> Tensor:
        """States (rows, columns, d) before the last norm; keys and values go into the columns after `used`."""
        decoder, (n_rows, n_columns) = self.decoder, ids.shape
        self._make_room(self.used + n_columns)
        columns = torch.arange(self.used, self.used + n_columns, device=decoder.device)
        positions = (decoder.n_prefix + columns[None] - self.pads[:, None]).clamp_(min=0)
        cos, sin = decoder.angles(positions)
        mask = self._mask(columns, self.cache[0][0].shape[2] if n_columns == 1 else self.used + n_columns)
        # A few rows at a time through all layers: what a layer makes then stays in the processor's cache.
        n_group = n_rows if n_columns == 1 or decoder.device.type != "cpu" else max(1, CACHED_TOKENS // n_columns)
        groups = []
        for start in range(0, n_rows, n_group):
            rows = slice(start, min(start + n_group, n_rows))
            hidden = functional.embedding(ids[rows], decoder.embedding)
            for number, layer in enumerate(decoder.layers):
                keys, values = self.cache[number]
                shared = decoder.prefix[number] if decoder.prefix else None
                hidden = layer(hidden, cos[rows], sin[rows], mask[rows], keys[rows], values[rows], shared, self.used)
            groups.append(hidden)
        return torch.cat(groups)

    def _make_room(self, n_columns: int) -> None:
        if n_columns <= self.cache[0][0].shape[2]:
            return
        n_columns = math.ceil(n_columns / BLOCK) * BLOCK
        for number, layer in enumerate(self.decoder.layers):
            grown = layer.empty_cache(self.n_rows, n_columns, self.decoder)
            for new, old in zip(grown, self.cache[number], strict=True):
                new[:, :, : self.used] = old[: self.n_rows, :, : self.used]
            self.cache[number] = grown

    def _mask(self, columns: Tensor, end: int) -> Tensor:
        """What queries of `columns` add to their scores of the columns before `end`: (rows, columns, end)."""
        at = torch.arange(end, device=columns.device)
        # Padding attends to nothing that counts: finite numbers that nobody reads.
        hidden = (at < self.pads[:, None])[:, None] | (at > columns[:, None])
        mask = torch.zeros(hidden.shape, dtype=self.decoder.dtype, device=columns.device)
        return mask.masked_fill_(hidden, torch.finfo(self.decoder.dtype).min)


class _Layer:
    def __init__(self, layer: Any, config: Any, *, keep: bool) -> None:
        attention, feed_forward = layer.self_attn, layer.mlp
        self.d: int = attention.head_dim
        self.n_heads: int = config.num_attention_heads
        self.n_kv: int = config.num_key_value_heads
        self.scale = 1 / math.sqrt(self.d)
        self.before_attention = Norm(layer.input_layernorm)
        self.before_feed_forward = Norm(layer.post_attention_layernorm)
        self.qkv = JoinedLinear(attention.q_proj, attention.k_proj, attention.v_proj, keep=keep)
        self.out = JoinedLinear(attention.o_proj, keep=keep)
        self.gate_up = JoinedLinear(feed_forward.gate_proj, feed_forward.up_proj, keep=keep)
        self.down = JoinedLinear(feed_forward.down_proj, keep=keep)

    def empty_cache(self, n_rows: int, n_columns: int, decoder: FusedDecoder) -> tuple[Tensor, Tensor]:
        """Room for keys and for values, (rows, kv_heads, columns, d) each."""
        shape = (n_rows, self.n_kv, n_columns, self.d)
        return tuple(torch.zeros(shape, dtype=decoder.dtype, device=decoder.device) for _ in range(2))  # type: ignore[return-value]

    def __call__(
        self,
        hidden: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        keys: Tensor,
        values: Tensor,
        shared: tuple[Tensor, Tensor] | None,
        used: int,
    ) -> Tensor:
        n_rows, n_columns, _ = hidden.shape
        packed = self.qkv(self.before_attention(hidden)).view(n_rows, n_columns, -1, self.d)
        turned = _rotate(packed[:, :, : self.n_heads + self.n_kv], cos, sin)
        end = used + n_columns
        keys[:, :, used:end] = turned[:, :, self.n_heads :].transpose(1, 2)
        values[:, :, used:end] = packed[:, :, self.n_heads + self.n_kv :].transpose(1, 2)
        attend = self._attend_one if n_columns == 1 else self._attend_many
        mixed = attend(
            turned[:, :, : self.n_heads], keys[:, :, : mask.shape[2]], values[:, :, : mask.shape[2]], mask, shared
        )
        hidden = hidden + self.out(mixed)
        gate, up = self.gate_up(self.before_feed_forward(hidden)).chunk(2, -1)
        return hidden + self.down(functional.silu(gate).mul_(up))

    def _attend_many(
        self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, shared: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        n_rows, n_columns = q.shape[:2]
        if shared is not None:
            keys, values = (
                torch.cat([one.expand(n_rows, -1, -1, -1), own], 2)
                for one, own in zip(shared, (keys, values), strict=True)
            )
            mask = functional.pad(mask, (shared[0].shape[1], 0))
        out = functional.scaled_dot_product_attention(
            q.transpose(1, 2), keys, values, attn_mask=mask[:, None], enable_gqa=self.n_heads != self.n_kv
        )
        return out.transpose(1, 2).reshape(n_rows, n_columns, -1)

    def _attend_one(
        self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, shared: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """One query column: heads that share a key head are stacked, and all rows meet the prefix in one product."""
        n_rows, groups, end = q.shape[0], self.n_heads // self.n_kv, keys.shape[2]
        n_prefix = 0 if shared is None else shared[0].shape[1]
        q = (q * self.scale).view(n_rows, self.n_kv, groups, self.d)
        scores = q.new_empty(n_rows, self.n_kv, groups, n_prefix + end)
        # Keys stand first: the other way round the product takes longer.
        own = torch.bmm(keys.reshape(-1, end, self.d), q.view(-1, groups, self.d).transpose(1, 2)).transpose(1, 2)
        torch.add(own.view(n_rows, self.n_kv, groups, end), mask[:, None], out=scores[..., n_prefix:])
        if shared is not None:
            by_head = q.transpose(0, 1).reshape(self.n_kv, n_rows * groups, self.d)
            before = torch.bmm(by_head, shared[0].transpose(1, 2)).view(self.n_kv, n_rows, groups, n_prefix)
            scores[..., :n_prefix] = before.transpose(0, 1)
        weights = torch.softmax(scores, -1)
        to_own = weights[..., n_prefix:].reshape(-1, groups, end)
        out = torch.bmm(to_own, values.reshape(-1, end, self.d)).view(n_rows, self.n_kv, groups, self.d)
        if shared is not None:
            to_prefix = weights[..., :n_prefix].transpose(0, 1).reshape(self.n_kv, n_rows * groups, n_prefix)
            out += torch.bmm(to_prefix, shared[1]).view(self.n_kv, n_rows, groups, self.d).transpose(0, 1)
        return out.reshape(n_rows, 1, -1)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (rows, columns, heads, d). Source: Su et al., RoFormer (2021)."""
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out
