"""`tunegate estimate`: trainable weights, memory by term, and which method fits which card; loads no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.commands.output import out, print_json, print_rows
from flows.views.base_model_shapes import dims_of
from schemas.errors import ConfigError
from schemas.load import load_file
from tasks.train.memory import CARDS, GIB, MARGIN, RUNTIME_GIB, Fit, ModelDims, fit_methods, known_dims, spec_for


def estimate(
    *,
    pipeline: str | None,
    base: str | None,
    rank: int,
    targets: list[str],
    batch_size: int,
    max_length: int,
    checkpointing: bool,
    config: Path,
    as_json: bool,
) -> int:
    """Estimate a pipeline's training, or that of a known base with settings of the command line.

    Raises:
        ConfigError: TG0139, neither or both of pipeline and base are given; TG0171, the base's shapes are not known.
    """
    if (pipeline is None) == (base is None):
        raise ConfigError("give a pipeline or --base, one of the two", code="TG0139", hint="tunegate estimate --help")
    if base is not None:
        spec = spec_for(base, rank=rank, targets=targets, batch_size=batch_size, checkpointing=checkpointing)
        dims, max_tokens = known_dims(base), max_length
    else:
        spec = load_file(config).get(str(pipeline)).train
        dims, max_tokens = dims_of(spec, config.resolve().parent), spec.max_length
    fits = fit_methods(dims, spec, max_tokens=max_tokens)
    if as_json:
        print_json({"n_parameters": dims.n_parameters, "max_tokens": max_tokens, "methods": [_json(f) for f in fits]})
        return 0
    out().print(
        f"{spec.base_model.rpartition('/')[2].partition('#')[0]}: {dims.n_parameters:,} parameters; batch "
        f"{spec.batch_size} x {max_tokens} tokens, checkpointing {'on' if spec.gradient_checkpointing else 'off'}\n",
        markup=False,
    )
    print_rows([_row(fit, dims) for fit in fits], tuple(_row(fits[0], dims)))
    out().print(
        f"\nGiB at the peak of a step, {RUNTIME_GIB} GiB of runtime apart. A card counts with {MARGIN:.0%} of it free; "
        "the figure is the share that stays free.",
        markup=False,
    )
    return 0


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
