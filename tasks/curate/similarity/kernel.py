"""Compile a function over arrays to machine code that holds no lock of Python's, and keep it on disk.

Kernels are serial, with one explicit signature each: numba's parallel loops load slowly and their threads spin when
idle. `run_in_slices` spreads one over threads instead. The compiled code is kept beside the module, in numba's folder
of the user's cache where that cannot be written, and nowhere where neither can: then each process compiles anew.
numba notices that a kernel's file has changed, not a file it calls into, so what a kernel calls stands in its file.

It knows nothing of texts. Called by the kernels of `tasks/curate/similarity/`, always inside functions: importing
numba takes half a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def kernel(signature: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile now, or load what an earlier process compiled, for this one signature."""

    def compile_it(function: Callable[P, R]) -> Callable[P, R]:
        try:
            compiled: Callable[P, R] = numba.njit(signature, cache=True, nogil=True)(function)
        except RuntimeError:  # no folder that can be written
            compiled = numba.njit(signature, nogil=True)(function)
        return compiled

    return compile_it


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """A part of kernels, compiled into each that calls it."""
    part: Callable[P, R] = numba.njit(nogil=True)(function)
    return part


def n_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_slices(work: Callable[[int, int], R], bounds: Iterable[int]) -> list[R]:
    """Call `work(low, high)` for each pair of neighbours in `bounds`, on threads; the results in order."""
    edges = list(bounds)
    if len(edges) <= 2:
        return [work(low, high) for low, high in zip(edges, edges[1:], strict=False)]
    with ThreadPoolExecutor(n_threads()) as pool:
        return list(pool.map(work, edges[:-1], edges[1:]))
