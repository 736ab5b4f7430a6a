"""One decoder layer: many new columns at once, or one column of all rows by torch alone.

It knows nothing of caches and batches. Made by tasks/model/decoding/fused_decoder.py and computed by
torch_reading.py; on a CPU in bfloat16 kernel_layers.py does the same from the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tasks.model.decoding.fused_weights import JoinedLinear, Norm

KeysValues = tuple[Tensor, Tensor]
"""Keys and values, (rows, kv_heads, columns, d) each; of the prefix (kv_heads, columns, d)."""


class FusedLayer:
    """The weights of one layer, those with a common input joined; `keep` as in `JoinedLinear`."""

    def __init__(self, layer: Any, config: Any, *, keep: bool) -> None:
        attention, feed_forward = layer.self_attn, layer.mlp
        self.d: int = attention.head_dim
        self.n_heads: int = config.num_attention_heads
        self.n_kv: int = config.num_key_value_heads
        self.n_gated: int = config.intermediate_size
        self.scale = 1 / math.sqrt(self.d)
        self.before_attention = Norm(layer.input_layernorm)
        self.before_feed_forward = Norm(layer.post_attention_layernorm)
        self.qkv = JoinedLinear(attention.q_proj, attention.k_proj, attention.v_proj, keep=keep)
        self.out = JoinedLinear(attention.o_proj, keep=keep)
        self.gate_up = JoinedLinear(feed_forward.gate_proj, feed_forward.up_proj, keep=keep)
        self.down = JoinedLinear(feed_forward.down_proj, keep=keep)

    def read(
        self, hidden: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor, past: Sequence[KeysValues], *, last: bool
    ) -> tuple[Tensor, KeysValues]:
        """The states after this layer, and the new columns' keys and values.

        Args:
            hidden: States (rows, columns, hidden).
            angles: Cosines and sines (rows, columns, 1, d).
            mask: Added to the scores, (rows, columns, past + columns).
            past: What the new columns attend to before themselves.
            last: Only the states of the last column are wanted.
        """
        n_rows, n_columns, _ = hidden.shape
        q, keys, values = (part.transpose(1, 2) for part in self._queries_keys_values(hidden, angles))
        parts = [*past, (keys, values)]
        all_keys, all_values = (torch.cat(side, 2) if past else side[0] for side in zip(*parts, strict=True))
        if last:
            hidden, q, mask, n_columns = hidden[:, -1:], q[:, :, -1:], mask[:, -1:], 1
        mixed = functional.scaled_dot_product_attention(
            q, all_keys, all_values, attn_mask=mask[:, None], enable_gqa=self.n_heads != self.n_kv
        )
        return self._after(hidden, mixed.transpose(1, 2).reshape(n_rows, n_columns, -1)), (keys, values)

    def step(
        self,
        hidden: Tensor,
        angles: tuple[Tensor, Tensor],
        mask: Tensor,
        cache: KeysValues,
        prefix: KeysValues | None,
        used: int,
    ) -> Tensor:
        """The states after this layer of one new column (rows, 1, hidden), whose key and value go into column `used`.

        It attends to the whole cache, free columns hidden by the mask (rows, 1, columns).
        """
        q, new_keys, new_values = self._queries_keys_values(hidden, angles)
        keys, values = (held[: len(hidden)] for held in cache)
        keys[:, :, used] = new_keys[:, 0]
        values[:, :, used] = new_values[:, 0]
        return self._after(hidden, self._attend_one(q, keys, values, mask, prefix))

    def _queries_keys_values(self, hidden: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """(rows, columns, heads or kv_heads, d) each, queries and keys turned by their positions."""
        n_rows, n_columns, _ = hidden.shape
        packed = self.qkv(self.before_attention(hidden)).view(n_rows, n_columns, -1, self.d)
        n_turned = self.n_heads + self.n_kv
        turned = _rotate(packed[:, :, :n_turned], *angles)
        return turned[:, :, : self.n_heads], turned[:, :, self.n_heads :], packed[:, :, n_turned:]

    def _after(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """What follows attention: both residual sums and the gated unit."""
        hidden = hidden + self.out(mixed)
        gate, up = self.gate_up(self.before_feed_forward(hidden)).chunk(2, -1)
        return hidden + self.down(functional.silu(gate).mul_(up))

    def _attend_one(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, prefix: KeysValues | None) -> Tensor:
        """One query column: heads that share a key head are stacked, and all rows meet the prefix in one product."""
        n_rows, groups, end = q.shape[0], self.n_heads // self.n_kv, keys.shape[2]
        n_prefix = 0 if prefix is None else prefix[0].shape[1]
        q = (q * self.scale).view(n_rows, self.n_kv, groups, self.d)
        scores = q.new_empty(n_rows, self.n_kv, groups, n_prefix + end)
        # Keys stand first: the other way round the product takes longer.
        own = torch.bmm(keys.reshape(-1, end, self.d), q.view(-1, groups, self.d).transpose(1, 2)).transpose(1, 2)
        torch.add(own.view(n_rows, self.n_kv, groups, end), mask[:, None], out=scores[..., n_prefix:])
        if prefix is not None:
            by_head = q.transpose(0, 1).reshape(self.n_kv, n_rows * groups, self.d)
            before = torch.bmm(by_head, prefix[0].transpose(1, 2)).view(self.n_kv, n_rows, groups, n_prefix)
            scores[..., :n_prefix] = before.transpose(0, 1)
        weights = torch.softmax(scores, -1)
        to_own = weights[..., n_prefix:].reshape(-1, groups, end)
        out = torch.bmm(to_own, values.reshape(-1, end, self.d)).view(n_rows, self.n_kv, groups, self.d)
        if prefix is not None:
            to_prefix = weights[..., :n_prefix].transpose(0, 1).reshape(self.n_kv, n_rows * groups, n_prefix)
            out += torch.bmm(to_prefix, prefix[1]).view(self.n_kv, n_rows, groups, self.d).transpose(0, 1)
        return out.reshape(n_rows, 1, -1)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (rows, columns, heads, d). Source: Su et al., RoFormer (2021)."""
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out
