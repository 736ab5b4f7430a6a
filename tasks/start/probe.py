"""How fast this processor multiplies matrices: a probe of a fifth of a second, where no training was timed yet."""

import time
from functools import cache
from pathlib import Path

import numpy as np

from tasks.compute.threads import n_threads

PROBE_S = 0.2
ANSWERING_EFFICIENCY = 0.33
"""Share of the probe's speed that answers reach on a CPU: SmolLM2-135M in float32 on two AVX2 cores."""
DECODING = 4
"""How many times the seconds of a prompt's token a new token takes: it is computed in small batches."""
SIDE = 64
"""Rows and columns. OpenBLAS multiplies such small matrices on one core, so that the best of many products is a core
undisturbed by other processes."""


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is there, which a probe of the processor says nothing about. Imports no torch."""
    return Path("/proc/driver/nvidia/version").exists()


def answering_work(n_items: int, n_new: float, *, prompt_tokens: float, n_parameters: float) -> float:
    """Floating-point operations of an arm's answers.

    Args:
        n_new: New tokens of all answers together.
        prompt_tokens: Mean of a prompt.
    """
    return 2 * n_parameters * (n_items * max(1.0, prompt_tokens) + DECODING * n_new)


def answers_per_minute(*, prompt_tokens: float, new_tokens: float, n_parameters: float) -> float:
    """Answers of one arm that this processor writes in a minute, good to a factor of two; two digits.

    Args:
        new_tokens: Mean of an answer.
    """
    each = answering_work(1, new_tokens, prompt_tokens=prompt_tokens, n_parameters=n_parameters)
    return float(f"{60 * ANSWERING_EFFICIENCY * flops_per_second() / each:.2g}")


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
