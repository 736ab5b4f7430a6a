"""What the commands of `flows/cli.py` and `flows/cli_curation.py` share: common arguments, and late imports."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

Pipeline = Annotated[str, typer.Argument(help="Name of a pipeline in pipelines.yaml.", show_default=False)]
Config = Annotated[Path, typer.Option("--config", "-c", help="The pipelines.yaml to use.", envvar="TUNEGATE_CONFIG")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
CONFIG = Path("pipelines.yaml")


def call(module: str, function: str, **arguments: Any) -> int:
    """Run a command's function; its module is imported only now."""
    return int(getattr(importlib.import_module(f"flows.commands.{module}"), function)(**arguments))
