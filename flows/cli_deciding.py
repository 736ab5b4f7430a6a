"""`tunegate advise`, `cost`, `ablate`, `compare`: arguments of what helps people decide; work in `flows/commands/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import CONFIG, Config, Json, Pipeline, call

Run = Annotated[str | None, typer.Option("--run", help="Id of a run, or its start; else the newest.")]
Machine = Annotated[str | None, typer.Option(help="Card of the price book that the run was on.")]
Queries = Annotated[float | None, typer.Option(min=1, help="Queries a month.")]
Prices = Annotated[Path | None, typer.Option(help="Price book in place of infra/prices.yaml.")]


def add_deciding_commands(app: typer.Typer) -> None:
    """Give the application the commands that help to decide."""
    for command in (advise, cost, ablate, compare):
        app.command()(command)


def advise(
    pipeline: Pipeline,
    run: Run = None,
    queries: Queries = None,
    machine: Annotated[str | None, typer.Option(help="Card of the price book that would serve.")] = None,
    prices: Prices = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Prompting, retrieval, QLoRA, LoRA or full? From what is recorded; names what is missing and what gets it."""
    return call(
        "advise", "advise", pipeline=pipeline, run_id=run, queries=queries, machine=machine, prices=prices,
        config=config, as_json=as_json,
    )  # fmt: skip


def cost(
    pipeline: Annotated[str | None, typer.Argument(help="A pipeline, or give --base.", show_default=False)] = None,
    run: Run = None,
    base: Annotated[str | None, typer.Option(help="A known base model, e.g. llama-2-7b, without any run.")] = None,
    tokens_in: Annotated[float, typer.Option(min=1, help="Prompt tokens of a query, with --base.")] = 500,
    tokens_out: Annotated[float, typer.Option(min=1, help="Reply tokens of a query, with --base.")] = 200,
    queries: Queries = None,
    machine: Machine = None,
    one_off: Annotated[float, typer.Option(min=0, help="US dollars beside the training: people's hours, say.")] = 0.0,
    prices: Prices = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Say what a query costs, how fast it can be at best, and from which volume an own model pays."""
    return call(
        "cost", "cost", pipeline=pipeline, run_id=run, base=base, tokens_in=tokens_in, tokens_out=tokens_out,
        queries=queries, machine=machine, one_off_usd=one_off, prices=prices, config=config, as_json=as_json,
    )  # fmt: skip


def ablate(
    pipeline: Pipeline,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this arm: raw, raw-k or without-STEP; repeat. All if not given.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Metric that is compared; that of the first rule else.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps of every arm; the pipeline's own else.")
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Is data quality the lever? Train on curated, raw and less curated tickets with equal steps, judge alike."""
    return call(
        "ablate", "ablate", pipeline=pipeline, only=only or [], metric=metric, n_steps=steps, config=config,
        as_json=as_json,
    )  # fmt: skip


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Run id, or the start of one.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="B", help="Run id, or the start of one.", show_default=False)],
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Lay two runs side by side: settings, data, scores on common items with intervals, cost, digests."""
    return call("compare", "compare", first=first, second=second, config=config, as_json=as_json)
