"""`tunegate init`: arguments; the work is in `flows/commands/init.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import CONFIG, Config, Json, call


def add_start_commands(app: typer.Typer) -> None:
    """Give the application the command that comes first."""
    app.command()(init)


def init(
    source: Annotated[
        Path,
        typer.Option(
            "--from",
            help="CSV, JSON lines or Parquet (also .gz, .zst) of tickets or conversations.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the pipeline; by the file's name if not given.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a pipelines.yaml that is there.")] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Look at a file of tickets and propose a commented pipelines.yaml."""
    return call("init", "init", source=source, name=name, force=force, config=config, as_json=as_json)
