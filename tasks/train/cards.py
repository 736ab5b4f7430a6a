"""The cards that a training on this machine would use: their free memory, and whether they multiply bfloat16.

Asked of CUDA's driver, which numbers the cards as torch does, whatever CUDA_VISIBLE_DEVICES names: numbers, ids, or
parts of a card (MIG). In a process of its own, run from this file with the standard library alone: a process that has
used the driver cannot fork others that do.
"""

import ctypes
import json
import subprocess
import sys
from typing import Any, NamedTuple

DRIVER = "libcuda.so.1"
_MAJOR = 75
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR."""
_BFLOAT16_SINCE = 8
"""Compute capability. Source: `torch.cuda.is_bf16_supported(including_emulation=False)`."""
_TIMEOUT_S = 60


class Card(NamedTuple):
    """A card, or the part of one that a process sees as a card."""

    free: int
    """Bytes that another process could use, next to its own CUDA context."""
    bfloat16: bool
    """It multiplies bfloat16; older ones emulate it."""


def cards_here() -> tuple[Card, ...]:
    """The visible cards in the order of their numbers; none without a driver, or with a torch that has no CUDA."""
    if _torch_is_for_cpu():
        return ()
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", __file__], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
        return tuple(Card(*each) for each in json.loads(done.stdout))
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


def _torch_is_for_cpu() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return True


def query(driver: Any) -> list[Card]:
    """Ask the driver for its cards.

    Args:
        driver: The loaded library.

    Raises:
        OSError: it refuses, e.g. because a card is reserved for another process.
    """

    def call(name: str, *arguments: Any) -> None:
        if code := getattr(driver, name)(*arguments):
            raise OSError(f"{name}: CUDA error {code}")

    call("cuInit", ctypes.c_uint(0))
    n_cards, number = ctypes.c_int(), ctypes.c_int()
    call("cuDeviceGetCount", ctypes.byref(n_cards))
    cards = []
    for index in range(n_cards.value):
        device, context = ctypes.c_int(), ctypes.c_void_p()
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(index))
        call("cuDeviceGetAttribute", ctypes.byref(number), ctypes.c_int(_MAJOR), device)
        call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        call("cuCtxSetCurrent", context)
        call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        call("cuDevicePrimaryCtxRelease_v2", device)
        cards.append(Card(free.value, number.value >= _BFLOAT16_SINCE))
    return cards


if __name__ == "__main__":
    try:
        found = query(ctypes.CDLL(DRIVER))
    except OSError:  # no driver, or none that answers: torch trains on the CPU
        found = []
    sys.stdout.write(json.dumps(found))
