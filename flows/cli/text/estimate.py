"""An estimate of memory, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.cli.output import out, print_rows
from schemas.training import TrainSpec
from tasks.train.memory import CARDS, GIB, MARGIN, RUNTIME_GIB, Fit
from tasks.train.model_shapes import ModelDims


def estimate_json(fits: Sequence[Fit], dims: ModelDims, *, max_tokens: int) -> dict[str, Any]:
    """As `tunegate study estimate --json` prints it."""
    return {"n_parameters": dims.n_parameters, "max_tokens": max_tokens, "methods": [_json(fit) for fit in fits]}


def print_estimate(fits: Sequence[Fit], dims: ModelDims, spec: TrainSpec, *, max_tokens: int) -> None:
    """One row for each method."""
    out().print(
        f"{spec.base_model.rpartition('/')[2].partition('#')[0]}: {dims.n_parameters:,} parameters; batch "
        f"{spec.batch_size} x {max_tokens} tokens, checkpointing {'on' if spec.gradient_checkpointing else 'off'}\n",
        markup=False,
    )
    print_rows([_row(fit, dims) for fit in fits])
    out().print(
        f"\nGiB at the peak of a step, {RUNTIME_GIB} GiB of runtime apart. A card counts with {MARGIN:.0%} of it free; "
        "the figure is the share that stays free.",
        markup=False,
    )


def _row(fit: Fit, dims: ModelDims) -> dict[str, str]:
    parts = {name: f"{size / GIB:.2f}" for name, size in fit.estimate.parts().items()}
    cards = {name: f"{free:+.0%}" if free >= MARGIN else "no" for name, free in fit.cards.items()}
    trained = f"{fit.n_trainable:,} ({fit.n_trainable / dims.n_parameters:.4%})"
    return {"method": fit.method, "trainable": trained, **parts, **cards}


def _json(fit: Fit) -> dict[str, Any]:
    return {
        "method": fit.method,
        "n_trainable": fit.n_trainable,
        "bytes": fit.estimate.parts(),
        "free_share": {name: round(fit.cards[name], 4) for name in CARDS},
        "smallest_card": fit.smallest_card,
    }
