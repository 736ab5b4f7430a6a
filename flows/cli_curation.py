"""`tunegate curate`, `funnel`, `quarantine` and `sample`: arguments; the work is in `flows/commands/`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli_options import CONFIG, Config, Json, Pipeline, call

Limit = Annotated[int, typer.Option(min=1, max=100_000, help="Rows shown at most.")]


def add_curation_commands(app: typer.Typer) -> None:
    """Give the application the commands of data teams."""
    for command in (curate, funnel, quarantine, sample):
        app.command()(command)


def curate(
    pipeline: Pipeline,
    config: Config = CONFIG,
    wait: Annotated[float, typer.Option(help="Seconds to wait for another run of the pipeline.")] = 0.0,
    as_json: Json = False,
) -> int:
    """Curate alone: tickets to splits, every row's fate in warehouse.duckdb and Parquet; trains nothing."""
    return call("curation", "curate", pipeline=pipeline, config=config, wait_s=wait, as_json=as_json)


def funnel(
    pipeline: Pipeline,
    reasons: Annotated[bool, typer.Option("--reasons", help="Also how many rows each rule took.")] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Show what became of the rows, step by step."""
    return call("curation", "funnel", pipeline=pipeline, reasons=reasons, config=config, as_json=as_json)


def quarantine(
    pipeline: Pipeline,
    sql: Annotated[
        str | None, typer.Option(help="One SELECT over the warehouse instead of the list.", show_default=False)
    ] = None,
    limit: Limit = 50,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """List faulty rows with place and reason, or ask the warehouse in SQL."""
    return call("curation", "quarantine", pipeline=pipeline, sql=sql, limit=limit, config=config, as_json=as_json)


def sample(
    pipeline: Pipeline,
    where: Annotated[
        str | None, typer.Option(help="SQL predicate over the ticket columns.", show_default=False)
    ] = None,
    n: Annotated[int, typer.Option("-n", "--rows", min=1, max=10_000, help="Rows to show.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed, other rows.")] = 0,
    raw: Annotated[bool, typer.Option("--raw", help="Rows as they came: shows personal data.")] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Show some curated tickets, the same for the same seed."""
    return call(
        "curation", "sample", pipeline=pipeline, where=where, n_rows=n, seed=seed, raw=raw, config=config,
        as_json=as_json,
    )  # fmt: skip
