"""Kernels: what stands between two products of a model, row by row. They round to bfloat16 where the model does.

Called by `tasks/model/decoding/kernel_states.py` and `tasks/model/decoding/kernel_calls.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.kernels.kernel import Part, kernel
from tasks.model.decoding.kernels.numbers import exponential, narrow, wide

_F = np.float32


@Part
def _norm(x: Any, weight: Any, epsilon: Any, out: Any, r: Any) -> Any:
    n = x.shape[1]
    square = _F(0)
    for i in range(n):
        value = wide(x[r, i])
        square += value * value
    scale = _F(1) / np.sqrt(square / _F(n) + _F(epsilon))
    for i in range(n):
        out[r, i] = narrow(wide(narrow(wide(x[r, i]) * scale)) * wide(weight[i]))
    return 0


@kernel("u16[,] u16[] f64 u16[,] i64 i64", reorders=True)
def norm_rows(x: Any, weight: Any, epsilon: Any, out: Any, low: Any, high: Any) -> int:
    """RMS norm of the rows `low` to `high` of x (rows, d) into `out`. Source: Zhang and Sennrich (2019)."""
    for r in range(low, high):
        _norm(x, weight, epsilon, out, r)
    return 0


@kernel("u16[,] u16[,] u16[] f64 u16[,] i64 i64", reorders=True)
def add_and_norm_rows(x: Any, more: Any, weight: Any, epsilon: Any, out: Any, low: Any, high: Any) -> int:
    """Add `more` (rows, d) to x, in place, and write the RMS norm of the sum into `out`."""
    n = x.shape[1]
    for r in range(low, high):
        for i in range(n):
            x[r, i] = narrow(wide(x[r, i]) + wide(more[r, i]))
        _norm(x, weight, epsilon, out, r)
    return 0


@kernel("u16[,] u16[,] i64 i64", reorders=True)
def gate_rows(gate_up: Any, out: Any, low: Any, high: Any) -> int:
    """silu(gate) * up: gate and up are the halves of `gate_up` (rows, 2 d), the product goes to `out` (rows, d)."""
    n = out.shape[1]
    for r in range(low, high):
        for i in range(n):
            gate = wide(gate_up[r, i])
            out[r, i] = narrow(wide(narrow(gate / (_F(1) + exponential(-gate)))) * wide(gate_up[r, n + i]))
    return 0


@Part
def _key(bits: Any) -> Any:
    """A number that is larger for a larger bfloat16, equal for both zeros, and largest for NaN."""
    size = np.int16(bits & np.uint16(0x7FFF))
    if size > np.int16(0x7F80):
        return np.int16(0x7FFF)
    return np.int16(-size) if bits > np.uint16(0x7FFF) else size


@kernel("u16[,] i64[] i64 i64")
def largest_of_rows(x: Any, places: Any, low: Any, high: Any) -> int:
    """Where each row of x (rows, n) is largest, the first of equal ones; a NaN is larger than all numbers."""
    for r in range(low, high):
        largest = _key(x[r, 0])
        for i in range(x.shape[1]):
            key = _key(x[r, i])
            largest = key if key > largest else largest
        for i in range(x.shape[1]):
            if _key(x[r, i]) == largest:
                places[r] = i
                break
    return 0
