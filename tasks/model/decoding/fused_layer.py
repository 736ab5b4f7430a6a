"""One decoder layer with its weights: many new columns at once, or one column of all rows by torch alone.

Linear layers with one input are joined into one product; LoRA factors stay apart from the frozen weights. Computed by
tasks/model/decoding/fused_decoder.py; on a CPU in bfloat16 kernel_layers.py does the same from the same weights.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

KeysValues = tuple[Tensor, Tensor]
"""Keys and values, (rows, kv_heads, columns, d) each; of the prefix (kv_heads, columns, d)."""


class Norm:
    """RMS norm, statistics in float32. Source: Zhang and Sennrich (2019)."""

    def __init__(self, module: Any) -> None:
        self.weight: Tensor = module.weight
        self.epsilon: float = module.variance_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        wide = x.float()
        # The vector norm reads once what square and mean would write and read again.
        square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        scale = square.div_(x.shape[-1]).add_(self.epsilon).rsqrt_()
        return wide.mul_(scale).to(x.dtype).mul_(self.weight) if wide is not x else x * scale * self.weight


class JoinedLinear:
    """Linear layers with a common input as one product, with LoRA factors where there are any.

    On a CPU the weight is laid out once as the library's kernel wants it, which it would do again at each product; in
    bfloat16 where the processor multiplies it. That layout replaces the modules' own weights, unless these are `shared`
    with another module.

    Args:
        modules: `nn.Linear`, 4-bit or with LoRA around them.
        shared: The weight is used elsewhere too: it stays, next to its layout.
        keep: No new layout, so that the modules' weights serve here and elsewhere.
    """

    def __init__(self, *modules: Any, shared: bool = False, keep: bool = False) -> None:
        bases = [getattr(module, "base_layer", module) for module in modules]
        weight = _joined_weight(bases)
        self.bias = _joined_bias(bases)
        self.lora = _joined_factors(modules, bases, weight.dtype)
        self.packed = not keep and packs(weight)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None) if self.packed else weight
        if self.packed and not shared:
            for base in bases:
                if base.weight.dtype == weight.dtype:
                    base.weight.data = weight.new_empty(0)

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        else:
            out = functional.linear(x, self.weight, self.bias)
        if self.lora is None:
            return out
        down, up = self.lora
        narrow = functional.linear(x, down).flatten(0, -2)
        out.view(-1, out.shape[-1]).addmm_(narrow, up)
        return out


def packs(weight: Tensor) -> bool:
    """Can the processor's library keep this weight in the layout of its kernel?"""
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if weight.device.type != "cpu" or not torch._C._get_mkldnn_enabled():
        return False
    known = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)  # type: ignore[no-untyped-call]
    if weight.dtype == torch.bfloat16:
        return bool(known and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(known and weight.dtype == torch.float32)


def _joined_factors(modules: Sequence[Any], bases: Sequence[Any], dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """LoRA's A one below the other, and B times the scale, transposed, in blocks; None without an adapter."""
    adapted = [module for module in modules if hasattr(module, "lora_A")]
    if not adapted:
        return None
    down = torch.cat([module.lora_A["default"].weight for module in adapted])
    ups = [
        module.lora_B["default"].weight * module.scaling["default"]
        if hasattr(module, "lora_B")
        else down.new_zeros(base.out_features, 0)
        for module, base in zip(modules, bases, strict=True)
    ]
    up = torch.block_diag(*ups)  # type: ignore[no-untyped-call]
    return down.to(dtype), up.to(dtype).t()


def _joined_weight(bases: Sequence[Any]) -> Tensor:
    weights = [_plain_weight(base) for base in bases]
    if len(weights) == 1:
        return weights[0]
    if _lie_together(weights):
        first = weights[0]
        shape = (sum(len(weight) for weight in weights), first.shape[1])
        return first.detach().as_strided(shape, first.stride(), first.storage_offset())
    joined = torch.cat(weights)
    if all(weight is base.weight for weight, base in zip(weights, bases, strict=True)):
        # The modules become views of the common matrix, so that it costs no memory.
        for base, part in zip(bases, torch.split(joined, [len(weight) for weight in weights]), strict=True):
            base.weight.data = part
    return joined


def _lie_together(weights: Sequence[Tensor]) -> bool:
    """Are the matrices parts of one joined before, in this order? Then a second adapter on the base joins nothing."""
    place = weights[0].storage_offset()
    for weight in weights:
        same = weight.untyped_storage().data_ptr() == weights[0].untyped_storage().data_ptr()
        if (
            not same
            or not weight.is_contiguous()
            or weight.storage_offset() != place
            or weight.dtype != weights[0].dtype
        ):
            return False
        place += weight.numel()
    return True


def _plain_weight(base: Any) -> Tensor:
    """The (d_out, d_in) matrix; a 4-bit one is dequantised once, as its own forward would at each token."""
    weight: Tensor = base.weight
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit

    dense: Tensor = dequantize_4bit(weight.data, state)
    return dense.to(getattr(base, "compute_dtype", None) or dense.dtype)


def _joined_bias(bases: Sequence[Any]) -> Tensor | None:
    """The layers' biases one after another, zero for a layer without; None when no layer has one."""
    known = [base.bias for base in bases if base.bias is not None]
    if not known:
        return None
    return torch.cat([known[0].new_zeros(base.out_features) if base.bias is None else base.bias for base in bases])


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
        turned = rotate(packed[:, :, :n_turned], *angles)
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
        # Keys come first: the other way round the product takes longer.
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


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (..., heads, d); cos and sin (..., 1, d). `-sin` inverts it.

    Source: Su et al., RoFormer (2021).
    """
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out
