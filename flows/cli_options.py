"""What the commands of `flows/cli.py` and `flows/cli_curation.py` share: common arguments, and late imports."""

from __future__ import annotations

import importlib
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer


def complete_pipeline(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of pipelines for the shell: two spaces below `pipelines:`.

    Read without the loader, which takes longer than a person waits for a key, and refuses a file that is being edited.
    """
    try:
        text = Path(ctx.params.get("config") or CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    section = re.search(r"^pipelines:.*\n((?:[ #].*\n|\n)*)", text, re.MULTILINE)
    names = re.findall(r"^  ([a-z][a-z0-9-]*):", section[1], re.MULTILINE) if section else []
    return [name for name in names if name.startswith(incomplete)]


Pipeline = Annotated[
    str,
    typer.Argument(help="Name of a pipeline in pipelines.yaml.", show_default=False, autocompletion=complete_pipeline),
]
Config = Annotated[Path, typer.Option("--config", "-c", help="The pipelines.yaml to use.", envvar="TUNEGATE_CONFIG")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
CONFIG = Path("pipelines.yaml")


def call(module: str, function: str, **arguments: Any) -> int:
    """Run a command's function; its module is imported only now.

    Of a command that has a state folder, temporary files lie below that, else below the cache: what a killed one leaves
    is swept by the next one. What its disk does is named.
    """
    command = getattr(importlib.import_module(f"flows.commands.{module}"), function)
    config = arguments.get("config")
    if not isinstance(config, Path):
        return int(command(**arguments))
    from flows.workspace.disk import named_disk_errors, need_folder, private_folder
    from flows.workspace.settings import load_settings
    from flows.workspace.temporary import sweep, temporary_files_below

    settings = load_settings(config)
    home, cache = settings.home, settings.cache
    with named_disk_errors(home):
        need_folder(home)
        with suppress(OSError):  # then temporary files stay where the system has them
            sweep(cache) if home.is_dir() else private_folder(cache)
        with temporary_files_below(home if home.is_dir() else cache):
            return int(command(**arguments))
