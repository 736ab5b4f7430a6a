"""What torch has to work with on this machine: threads, arithmetic, devices. Asked by `tunegate doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TorchFacts:
    """What a training here would use."""

    n_threads: int
    bfloat16: bool
    """`dtype: auto` is bfloat16."""
    devices: tuple[str, ...]
    """Name and memory of each, in words."""


def torch_facts() -> TorchFacts:
    """Imports torch; moves nothing to a device."""
    import torch

    from tasks.model.base_model import resolve_dtype

    devices = [
        f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        for properties in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]
    return TorchFacts(
        n_threads=torch.get_num_threads(),
        bfloat16=resolve_dtype("auto") is torch.bfloat16,
        devices=tuple(devices or ["no CUDA device: the processor computes"]),
    )
