"""Run work on the processors that this process may use."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

R = TypeVar("R")


def n_threads() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_slices(work: Callable[[int, int], R], bounds: Sequence[int]) -> list[R]:
    """Call `work(low, high)` on threads for each pair of neighbours in `bounds`; returns the results in order."""
    if len(bounds) <= 2:
        return [work(low, high) for low, high in pairwise(bounds)]
    with ThreadPoolExecutor(n_threads()) as pool:
        return list(pool.map(work, bounds[:-1], bounds[1:]))
