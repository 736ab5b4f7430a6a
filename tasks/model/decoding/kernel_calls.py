"""Kernels called with tensors: their form as arguments, and rows shared out over threads.

Used by the other modules of this folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.model.decoding.kernels import largest_of_rows
from tasks.threads import n_threads

Flat = NDArray[Any]
"""A tensor's memory as kernels take it."""

_FEW = 256
"""Fewer rows than this for each thread are not worth waking it."""


def flat(tensor: Tensor, dtype: torch.dtype = torch.bfloat16) -> Flat:
    """The memory of a contiguous tensor of this type, which it keeps alive; bfloat16 numbers as their bits.

    Raises:
        ValueError: it is of another type, or its numbers do not lie one after another.
    """
    if tensor.dtype != dtype or not tensor.is_contiguous():
        raise ValueError(
            f"a kernel reads contiguous tensors of {dtype}, not {tensor.dtype} with steps {tensor.stride()}"
        )
    memory: Flat = (tensor.view(torch.uint16) if dtype == torch.bfloat16 else tensor).numpy()
    return memory


def slices(n_rows: int, few: int = _FEW) -> list[tuple[int, int]]:
    """Rows from and to, one part for each of torch's threads where each then has `few` rows."""
    n_parts = max(1, min(torch.get_num_threads(), n_rows // few))
    return list(pairwise(n_rows * number // n_parts for number in range(n_parts + 1)))


def in_parts(work: Callable[[int, int, int], object], parts: list[tuple[int, int]]) -> None:
    """Call `work(number, low, high)` for each part, the first on this thread; kernels run without Python's lock."""
    waiting = [_threads().submit(work, number, *parts[number]) for number in range(1, len(parts))]
    work(0, *parts[0])
    for each in waiting:
        each.result()


def largest_places(x: Tensor) -> Tensor:
    """Where each row of x (rows, n) is largest, the first of equal ones: (rows,)."""
    out = torch.empty(len(x), dtype=torch.int64)
    arguments = flat(x), flat(out, torch.int64)
    in_parts(lambda _, low, high: largest_of_rows(*arguments, low, high), slices(len(x)))
    return out


@cache
def _threads() -> ThreadPoolExecutor:
    """Started as they are needed."""
    return ThreadPoolExecutor(n_threads(), thread_name_prefix="kernel")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of its parent's threads
