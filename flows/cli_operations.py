"""`tunegate tick`, `serve`, `deploy`, `feedback`, `migrate`, `metrics`: what goes on by itself."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import CONFIG, Config, Json, Pipeline, call


class CauseOption(StrEnum):
    """As `schemas.ticks.Cause`; an enumeration, so that the parser checks it."""

    schedule = "schedule"
    event = "event"
    person = "person"


def add_operations_commands(app: typer.Typer) -> None:
    """Give the application the commands of operation."""
    for command in (tick, serve, deploy, feedback, migrate, metrics):
        app.command()(command)


def tick(
    pipeline: Pipeline,
    cause: Annotated[CauseOption, typer.Option(help="What made it; kept in the ledger.")] = CauseOption.person,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Decide as the schedule does at its times (`retrain`): run the pipeline, or skip and say until when."""
    return call("tick", "tick", pipeline=pipeline, cause=cause.value, config=config, as_json=as_json)


def serve(config: Config = CONFIG, as_json: Json = False) -> int:
    """Run every pipeline with a `schedule` or `triggers` at its times, until interrupted."""
    return call("servers", "serve", config=config, as_json=as_json)


def deploy(
    pool: Annotated[
        str | None, typer.Option(help="Work pool whose workers run them; `tunegate serve` if not given.")
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Bring Prefect's deployments, limits and automations in line with pipelines.yaml; may be repeated."""
    return call("deploy", "deploy", pool=pool, config=config, as_json=as_json)


def feedback(
    pipeline: Pipeline,
    file: Annotated[
        Path | None, typer.Argument(help="JSON lines: ticket_id, version, outcome, at, reply; stdin if `-`.")
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Take in what agents did with suggestions, and show how often each version's were accepted."""
    return call("feedback", "feedback", pipeline=pipeline, file=file, config=config, as_json=as_json)


def migrate(
    ledger_to: Annotated[
        str | None,
        typer.Option(help="Copy the ledger there: postgresql://... or a folder; empty so far.", show_default=False),
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Bring the ledger and DuckDB files of another version up to date, after a backup below `backups/`."""
    return call("migrate", "migrate", ledger_to=ledger_to, config=config, as_json=as_json)


def metrics(config: Config = CONFIG) -> int:
    """Print what the ledger knows as Prometheus metrics: runs, champions, rows, times, what MLflow was not told."""
    return call("metrics", "metrics", config=config)
