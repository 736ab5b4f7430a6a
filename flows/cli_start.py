"""`tunegate init` and `completion`: arguments; the work is in `flows/commands/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.cli_options import CONFIG, Config, Json, call


def add_start_commands(app: typer.Typer) -> None:
    """Give the application the commands that come first."""
    for command in (init, completion):
        app.command()(command)


def init(
    source: Annotated[
        Path,
        typer.Option(
            "--from",
            help="CSV, JSON lines or Parquet (also .gz, .zst) of tickets; or the YAML of axolotl or LLaMA-Factory.",
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
    """Look at a file of tickets and propose a commented pipelines.yaml, or translate another trainer's settings."""
    return call("init", "init", source=source, name=name, force=force, config=config, as_json=as_json)


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Whose script.", show_default=False)],
    as_json: Json = False,
) -> int:
    """Print a script that completes commands, options and the names of pipelines; it starts no Python."""
    return call("completion", "completion", shell=shell, as_json=as_json)
