"""The states of a batch between two products, on a CPU in bfloat16: norms, sums and gates by kernels.

Room for what the next product reads is made once for all layers: thousands of small tensors a second would cost more
than the kernels that fill them. Used by tasks/model/decoding/kernel_layers.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.model.decoding.fused_weights import Norm
from tasks.model.decoding.kernel_calls import Flat, flat, in_parts, slices
from tasks.model.decoding.kernels import add_and_norm_rows, gate_rows, norm_rows


class KernelNorm:
    """A norm as kernels take it."""

    def __init__(self, norm: Norm) -> None:
        # Detached, this keeps the numbers alive even if the parameter is given others.
        self.weight: Flat = flat(norm.weight.detach())
        self.epsilon = norm.epsilon


class States:
    """States and their room; what a method returns holds until the next call of the same one.

    Args:
        hidden: (rows, columns, d), contiguous; changed in place.
        n_gated: Numbers of a state within the feed-forward part.
    """

    def __init__(self, hidden: Tensor, n_gated: int) -> None:
        self.hidden = hidden
        self._normed, self._gated = torch.empty_like(hidden), hidden.new_empty(*hidden.shape[:-1], n_gated)
        self._flat_hidden, self._flat_normed, self._flat_gated = map(_by_row, (hidden, self._normed, self._gated))
        self._parts = slices(hidden.shape[:-1].numel())

    def normed(self, norm: KernelNorm) -> Tensor:
        """The norm of the states."""
        arguments = self._flat_hidden, norm.weight, norm.epsilon, self._flat_normed
        in_parts(lambda _, low, high: norm_rows(*arguments, low, high), self._parts)
        return self._normed

    def added_and_normed(self, more: Tensor, norm: KernelNorm) -> Tensor:
        """Add `more` to the states; the norm of the sum."""
        arguments = self._flat_hidden, _by_row(more), norm.weight, norm.epsilon, self._flat_normed
        in_parts(lambda _, low, high: add_and_norm_rows(*arguments, low, high), self._parts)
        return self._normed

    def gated(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up of (rows, columns, 2 n_gated), gate first.

        Raises:
            ValueError: `gate_up` is of another width, which the kernel would not see.
        """
        if gate_up.shape[-1] != 2 * self._gated.shape[-1]:
            raise ValueError(f"gates of {gate_up.shape[-1]} numbers where 2 * {self._gated.shape[-1]} are expected")
        arguments = _by_row(gate_up), self._flat_gated
        in_parts(lambda _, low, high: gate_rows(*arguments, low, high), self._parts)
        return self._gated


def _by_row(x: Tensor) -> Flat:
    return flat(x.view(-1, x.shape[-1]))
