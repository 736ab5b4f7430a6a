"""What multiplies here, a GPU or the processor, and the most operations a second it can. Used by `shapes.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.train.runs import run_script, told

PUBLISHED = {
    "NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 NVL": 835e12, "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-40GB": 312e12, "NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12, "NVIDIA L40S": 362e12, "NVIDIA L4": 121e12, "NVIDIA A10G": 70e12,
}  # fmt: skip
"""Card as torch names it -> bfloat16 operations a second without sparsity, from NVIDIA's data sheets."""


@dataclass(frozen=True)
class Device:
    """What multiplies, and the most it can."""

    name: str
    measured: float
    """Operations a second of a product of two large matrices in bfloat16."""
    on_gpu: bool

    @property
    def most(self) -> float:
        """Operations a second: published for the card, else measured (a part of a card has a name of its own).

        >>> Device("NVIDIA L4", 9e13, True).most, Device("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9e13, True).most
        (121000000000000.0, 90000000000000.0)
        """
        return PUBLISHED.get(self.name, self.measured)

    def __str__(self) -> str:
        whose = "published" if self.name in PUBLISHED else "the measured"
        return (
            f"{self.name}: {self.measured / 1e12:.3g} TFLOP/s measured, "
            f"{self.most / 1e12:.3g} taken as its most ({whose})"
        )


def one_card(environ: Mapping[str, str]) -> str:
    """CUDA_VISIBLE_DEVICES for a contestant: one card, or Trainer would spread its batches over all.

    >>> one_card({"CUDA_VISIBLE_DEVICES": "2,3"}), one_card({})
    ('2', '0')
    """
    return environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def this_device(scratch: Path, card: str, *, threads: int, processor: str) -> Device:
    """Measured in a process of its own; `processor` is its name where there is no GPU."""
    answer = scratch / "device.json"
    cost = run_script([sys.executable, "device_engine.py", answer], scratch, threads=threads, own=True, card=card)
    if not cost.complete:
        raise RuntimeError(f"the device: {told(cost)}")
    found = json.loads(answer.read_text())
    return Device(found["gpu"] or processor, found["measured_flops"], bool(found["gpu"]))
