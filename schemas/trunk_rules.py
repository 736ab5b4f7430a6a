"""What `train.cache_trunk: on` asks of the other settings. Used by `schemas/training.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from schemas.spec import Fault

if TYPE_CHECKING:
    from schemas.training import TrainSpec


def trunk_faults(train: TrainSpec) -> Iterator[Fault]:
    """Settings under which no layer stays as it is below the lowest that trains."""
    if train.cache_trunk != "on":
        return
    if train.method == "full":
        yield Fault(
            "method full trains every layer: there is no frozen trunk to cache",
            at=("cache_trunk",),
            hint="use method: lora with adapter.top_layers, or cache_trunk: auto",
        )
    elif train.adapter.top_layers is None and 0 in train.adapter.layers_of(1):
        yield Fault(
            "all layers are adapted: there is no frozen trunk to cache",
            at=("cache_trunk",),
            hint="set adapter.top_layers, e.g. 10, or cache_trunk: auto",
        )
