"""Differentiable parts of a decoder layer, written by hand because the stock ones are slow on a CPU.

Each computes what the layer in transformers computes, with the same precision and order of rounding, but makes fewer
passes over memory, keeps only what its backward needs and never computes gradients of frozen weights. Tensors in,
tensors out. Tests compare each with autograd. Shapes: N = rows, one per token.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

LOSS_ROWS = 128
"""Positions with logits in memory at once: 128 rows of a 49k vocabulary in float32 are 25 MB."""


class _RmsNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True).add_(epsilon))
        ctx.save_for_backward(x, weight, scale)
        return wide.mul_(scale).to(x.dtype).mul_(weight) if x.dtype != torch.float32 else wide * scale * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        gradient = (grads[0] * weight).float()
        normal = x.float() * scale
        inner = (gradient * normal).mean(-1, keepdim=True)
        return gradient.sub_(normal.mul_(inner)).mul_(scale).to(x.dtype), None, None


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """`x / sqrt(mean(x^2) + epsilon) * weight` over the last axis, statistics in float32; `weight` is frozen.

    Source: Zhang and Sennrich, Root Mean Square Layer Normalization (2019).
    """
    out: Tensor = _RmsNorm.apply(x, weight, epsilon)
    return out


class _GatedUnit(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        active = functional.silu(gate)
        ctx.save_for_backward(gate, up, active)
        return active * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up, active = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grads[0] * up, gate), grads[0] * active


def gated_unit(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`, elementwise.

    Source: Shazeer, GLU Variants Improve Transformer (2020).
    """
    out: Tensor = _GatedUnit.apply(gate, up)
    return out


class _FrozenLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Callable[[], Tensor], bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return functional.linear(x, weight(), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] @ ctx.weight(), None, None


def frozen_linear(x: Tensor, weight: Callable[[], Tensor], bias: Tensor | None = None) -> Tensor:
    """`x @ weight().T + bias` without gradients for weight and bias.

    Args:
        x: (N, d_in).
        weight: Returns the (d_out, d_in) matrix; called again in the backward, so that 4-bit weights are dequantised
            twice instead of being kept.
    """
    out: Tensor = _FrozenLinear.apply(x, weight, bias)
    return out


class _AdaptedLinear(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Callable[[], Tensor], bias: Tensor | None, down: Tensor, up: Tensor
    ) -> Tensor:
        narrow = functional.linear(x, down)
        ctx.weight = weight
        ctx.save_for_backward(x, narrow, down, up)
        return functional.linear(x, weight(), bias).addmm_(narrow, up.t())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor]:
        x, narrow, down, up = ctx.saved_tensors
        (gradient,) = grads
        inner = gradient @ up
        to_x = (gradient @ ctx.weight()).addmm_(inner, down) if ctx.needs_input_grad[0] else None
        return to_x, None, None, inner.t() @ x, gradient.t() @ narrow


def adapted_linear(x: Tensor, weight: Callable[[], Tensor], bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
    """`x @ weight().T + bias + (x @ down.T) @ up.T`, with gradients for x, down and up only.

    Args:
        x: (N, d_in).
        weight: As in `frozen_linear`.
        bias: (d_out,), frozen.
        down: LoRA's A, (rank, d_in).
        up: LoRA's B times alpha / rank, (d_out, rank).

    Source: Hu et al., LoRA (2021), section 4.1.
    """
    out: Tensor = _AdaptedLinear.apply(x, weight, bias, down, up)
    return out


class _TokenLosses(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        wants_gradient = ctx.needs_input_grad[0]
        losses = hidden.new_empty(len(targets), dtype=torch.float32)
        gradient = torch.empty_like(hidden) if wants_gradient else None
        for start in range(0, len(targets), LOSS_ROWS):
            rows = slice(start, start + LOSS_ROWS)
            logits = functional.linear(hidden[rows], weight)
            wanted = targets[rows, None]
            top, place = logits.max(-1, keepdim=True)
            chances = torch.softmax(logits, -1, dtype=torch.float32)
            # log-sum-exp from the most likely token, whose probability cannot underflow.
            total = top.float() - chances.gather(1, place).log()
            losses[rows] = (total - logits.gather(1, wanted).float())[:, 0]
            if gradient is not None:
                chances.scatter_add_(1, wanted, chances.new_full(wanted.shape, -1.0))
                torch.mm(chances.to(weight.dtype), weight, out=gradient[rows])
        ctx.gradient = gradient
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return (ctx.gradient * grads[0][:, None]).to(ctx.gradient.dtype), None, None


def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy per position, nats, float32 (n,), with a gradient for `hidden` only.

    The gradient is computed in the forward, a few rows at a time: the (n, vocabulary) logits never exist all at once.

    Args:
        hidden: (n, d).
        weight: Output head, (vocabulary, d), frozen.
        targets: Token ids, int64 (n,).
    """
    out: Tensor = _TokenLosses.apply(hidden, weight, targets)
    return out
