"""`tunegate study estimate`: which training method fits which card."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Base, Config, PipelineOrBase
from flows.cli.output import Result, TextLine, TextTable
from flows.views.advice import dims_of
from schemas.errors import ConfigError
from schemas.load import load_file
from schemas.training import TrainSpec
from tasks.train.memory import CARDS, GIB, MARGIN, RUNTIME_GIB, Fit, fit_methods, spec_for
from tasks.train.model_shapes import ModelDims, known_dims


@command(example="tunegate study estimate --base llama-3.1-8b --rank 32")
def estimate(
    pipeline: PipelineOrBase = None,
    base: Base = None,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank, with --base.")] = 16,
    target: Annotated[
        list[str] | None, typer.Option(help="Adapted layer, with --base; repeat. All linear ones if not given.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples of a step, with --base.")] = 1,
    max_length: Annotated[int, typer.Option(min=8, help="Tokens of the longest example, with --base.")] = 512,
    checkpointing: Annotated[bool, typer.Option(help="Gradient checkpointing, with --base.")] = True,
    config: Config = CONFIG,
) -> Result:
    """Show which training method fits which card.

    Trainable weights and memory by term, from the shapes alone: no model is loaded.
    """
    if (pipeline is None) == (base is None):
        raise ConfigError(
            "give a pipeline or --base, one of the two", code="TG0139", hint="tunegate study estimate --help"
        )
    if base is not None:
        spec = spec_for(base, rank=rank, targets=target or [], batch_size=batch_size, checkpointing=checkpointing)
        dims, max_tokens = known_dims(base), max_length
    else:
        spec = load_file(config).get(str(pipeline)).train
        dims, max_tokens = dims_of(spec, config.resolve().parent), spec.max_length
    fits = fit_methods(dims, spec, max_tokens=max_tokens)
    counts = {"n_parameters": dims.n_parameters, "n_active": dims.n_active, "max_tokens": max_tokens}
    data = {**counts, "methods": [_fit_json(fit) for fit in fits]}
    return Result(data, _estimate_text(fits, dims, spec, max_tokens=max_tokens))


def _estimate_text(fits: Sequence[Fit], dims: ModelDims, spec: TrainSpec, *, max_tokens: int) -> Iterator[Any]:
    """One row for each method."""
    active = f" ({dims.n_active:,} for each token)" if dims.n_active < dims.n_parameters else ""
    yield (
        f"{spec.base_model.rpartition('/')[2].partition('#')[0]}: {dims.n_parameters:,} parameters{active}; batch "
        f"{spec.batch_size} x {max_tokens} tokens, checkpointing {'on' if spec.gradient_checkpointing else 'off'}\n"
    )
    yield TextTable([_fit_row(fit, dims) for fit in fits])
    if dims.n_stacked:
        yield "\nqlora cannot load this model: its experts are stacked in one parameter of each layer."
    yield TextLine(
        f"\nGiB at the peak of a step, {RUNTIME_GIB} GiB of runtime apart. A card counts with {MARGIN:.0%} of it free; "
        "the figure is the share that stays free.",
        wraps=True,
    )


def _fit_row(fit: Fit, dims: ModelDims) -> dict[str, str]:
    parts = {name: f"{size / GIB:.2f}" for name, size in fit.estimate.parts().items()}
    cards = {name: f"{free:+.0%}" if free >= MARGIN else "no" for name, free in fit.cards.items()}
    trained = f"{fit.n_trainable:,} ({fit.n_trainable / dims.n_parameters:.4%})"
    return {"method": fit.method, "trainable": trained, **parts, **cards}


def _fit_json(fit: Fit) -> dict[str, Any]:
    return {
        "method": fit.method,
        "n_trainable": fit.n_trainable,
        "bytes": fit.estimate.parts(),
        "free_share": {name: round(fit.cards[name], 4) for name in CARDS},
        "smallest_card": fit.smallest_card,
    }
