"""What multiplies here, a GPU or the processor, and how many operations a second a large bfloat16 product reaches.

Called as `device_engine.py answer.json`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch

SECONDS = 2.0


def measured_flops(device: torch.device, size: int) -> float:
    """The best of the products of two (size, size) matrices within some seconds."""
    one = torch.randn(size, size, dtype=torch.bfloat16, device=device)
    other, best, end = one.clone(), 0.0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(one, other)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def main() -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    on_gpu = torch.cuda.is_available()
    flops = measured_flops(torch.device("cuda" if on_gpu else "cpu"), 8192 if on_gpu else 2048)
    name = torch.cuda.get_device_name() if on_gpu else ""
    Path(sys.argv[1]).write_text(json.dumps({"gpu": name, "measured_flops": flops}))


if __name__ == "__main__":
    main()
