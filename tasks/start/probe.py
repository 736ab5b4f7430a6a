"""How fast this processor multiplies matrices: a probe of a fifth of a second, where no training was timed yet."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

import numpy as np

from tasks.compute.threads import n_threads

PROBE_S = 0.2
SIDE = 64
"""Rows and columns. OpenBLAS multiplies such small matrices on one core, so that the best of many products is a core
undisturbed by other processes."""


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is there, which a probe of the processor says nothing about. Imports no torch."""
    return Path("/proc/driver/nvidia/version").exists()


@cache
def flops_per_second() -> float:
    """Floating-point operations per second of float32 products on all cores of this process."""
    left, right, out = (np.ones((SIDE, SIDE), np.float32) for _ in range(3))
    best, end = float("inf"), time.monotonic() + PROBE_S
    while time.monotonic() < end:
        began = time.perf_counter()
        np.matmul(left, right, out)
        best = min(best, time.perf_counter() - began)
    return 2 * SIDE**3 / best * n_threads()
