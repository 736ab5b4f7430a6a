"""`tunegate gate explain`: arguments; the work is in `flows/commands/gate.py`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli_options import CONFIG, Config, Json, call

gate_app = typer.Typer(help="Look into a verdict.", no_args_is_help=True)


@gate_app.callback()
def gate() -> None:
    """Look into a verdict."""


@gate_app.command()
def explain(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Run id, or the start of one.", show_default=False)],
    metric: Annotated[
        str | None,
        typer.Option(help="Metric whose worst items are shown; that of the first rule not met if not given."),
    ] = None,
    items: Annotated[int, typer.Option(min=0, max=1000, help="Worst items shown; shows ticket text.")] = 5,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Explain a verdict: each rule with its interval, items won and lost, and the worst items side by side."""
    return call("gate", "explain", run_id=run_id, metric=metric, n_items=items, config=config, as_json=as_json)
