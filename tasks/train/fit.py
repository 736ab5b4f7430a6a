"""Which method of training fits which card, before any card is asked for.

Arithmetic over `tasks/train/memory.py`, without torch. It knows nothing of what is installed. Called by
`tunegate estimate`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from schemas.errors import ConfigError
from schemas.names import closest
from schemas.training import AdapterSpec, Method, TrainSpec
from tasks.train.memory import MemoryEstimate, ModelDims, estimate_memory, trainable_parameters

GIB = 2**30
CARDS = {"24 GB": 22.5, "40 GB": 39.5, "48 GB": 45.0, "80 GB": 79.1, "141 GB": 140.4}
"""Card -> GiB that its driver reports (L4 and A10G, A100-40, L40S, A100-80 and H100, H200: the smaller of each)."""
RUNTIME_GIB = 0.8
"""CUDA context, kernels and the allocator's waste: measured values lie between 0.5 and 1."""
MARGIN = 0.1
"""Share of a card that must stay free for the estimate to count as a fit: fragmentation, and the estimate's error."""
_KNOWN = Path(__file__).with_name("known_models.json")


@dataclass(frozen=True)
class Fit:
    """One method on one model."""

    method: Method
    n_trainable: int
    estimate: MemoryEstimate
    cards: dict[str, float]
    """Card -> share of it that stays free, negative when it does not fit; below `MARGIN` counts as no fit."""

    @property
    def smallest_card(self) -> str | None:
        """The smallest card it fits with the margin; None when it fits none."""
        return next((name for name, free in self.cards.items() if free >= MARGIN), None)


def known_models() -> tuple[str, ...]:
    """Names whose shapes are shipped."""
    return tuple(sorted(json.loads(_KNOWN.read_text(encoding="utf-8"))))


def known_dims(name: str) -> ModelDims:
    """Shapes of a model by its name, from its public configuration.

    Raises:
        ConfigError: TG0182, no shapes of that name are shipped.
    """
    dims = ModelDims.of(known_config(name))
    if dims is None:
        raise TypeError(f"known_models.json: {name} is no decoder of the covered kind")
    return dims


def known_config(name: str) -> dict[str, Any]:
    """The fields of its config.json that say its shapes.

    Raises:
        ConfigError: TG0182, no shapes of that name are shipped.
    """
    models: dict[str, dict[str, Any]] = json.loads(_KNOWN.read_text(encoding="utf-8"))
    key = name.lower().removesuffix("-hf").rpartition("/")[2]
    if key not in models:
        raise ConfigError(
            f"no shapes of {name!r} are shipped; known are {', '.join(sorted(models))}",
            code="TG0182",
            where="--base",
            hint=closest(key, models),
        )
    return models[key]


def fit_methods(dims: ModelDims, spec: TrainSpec, *, max_tokens: int) -> list[Fit]:
    """Every method with its trainable weights, its peak memory and the cards it fits.

    Args:
        dims: Shapes of the base model.
        spec: Adapter, batch size, checkpointing; its own method plays no part.
        max_tokens: Longest example, tokens.
    """
    return [_fit(dims, spec, method, max_tokens) for method in get_args(Method)]


def _fit(dims: ModelDims, spec: TrainSpec, method: Method, max_tokens: int) -> Fit:
    # model_copy checks nothing: the learning rate of another method would be refused.
    estimate = estimate_memory(dims, spec.model_copy(update={"method": method}), max_tokens=max_tokens)
    needed = estimate.total / GIB + RUNTIME_GIB
    n_trainable = dims.n_parameters if method == "full" else trainable_parameters(dims, spec.adapter)
    return Fit(method, n_trainable, estimate, {name: 1 - needed / size for name, size in CARDS.items()})


def spec_for(base: str, *, rank: int, targets: Sequence[str], batch_size: int, checkpointing: bool) -> TrainSpec:
    """Settings of an estimate that no pipeline declares."""
    adapter = AdapterSpec(rank=rank, alpha=2 * rank, target_modules=tuple(targets) or "all-linear")
    return TrainSpec(base_model=base, adapter=adapter, batch_size=batch_size, gradient_checkpointing=checkpointing)
