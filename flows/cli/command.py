"""How a function becomes a command: its parser, its example, the folders that it works in, and how its result prints.

A command returns a `Result`, or its exit code if it printed what it had to say while it worked.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import typer

from flows.cli.commands import PARSERS
from flows.cli.exit_codes import CtrlCError
from flows.cli.options import CONFIG, Json
from flows.cli.output import Result, render
from flows.workspace.disk import named_disk_errors, need_folder, private_folder
from flows.workspace.settings import load_settings
from flows.workspace.temporary import sweep, temporary_files_below
from tasks.extras import need_extra


def command(
    *, example: str, json: bool = True, computes: bool = False
) -> Callable[[Callable[..., Result | int]], Callable[..., int]]:
    """Make a function a command: its name is the command's, its docstring the help, with the example below it.

    Args:
        json: The command has `--json`; a function that takes `as_json` prints its result itself.
        computes: It trains, lets a model answer, or reads one with the libraries of the extra `train`; without them it
            ends before it begins (`ConfigError`, TG0112).
    """

    def register(function: Callable[..., Result | int]) -> Callable[..., int]:
        signature = inspect.signature(function, eval_str=True)
        parameters = signature.parameters
        prints_itself = "as_json" in parameters
        name = function.__name__.rstrip("_").replace("_", "-")

        @functools.wraps(function)
        def run_command(**arguments: Any) -> int:
            as_json = arguments.get("as_json", False) if prints_itself else arguments.pop("as_json", False)
            reads_config = "config" in parameters
            if computes:
                need_extra("train", what=f"`{name}`")
            try:
                with _workspace(arguments.get("config", CONFIG)) if reads_config else nullcontext():
                    found = function(**arguments)
                    return render(found, as_json=as_json) if isinstance(found, Result) else found
            except KeyboardInterrupt as stop:
                raise CtrlCError(*stop.args) from stop

        if json and not prints_itself:
            option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
            signature = signature.replace(parameters=[*parameters.values(), option])
        run_command.__signature__ = signature  # type: ignore[attr-defined]
        # Its help is plain text: rich's panels take 0.35 s to import and need more lines than a terminal has.
        app = typer.Typer(rich_markup_mode=None, add_completion=False)
        app.command(name, epilog=f"Example: {example}")(run_command)
        PARSERS[function.__module__, name] = app
        return run_command

    return register


@contextmanager
def _workspace(config: Path) -> Iterator[None]:
    """Put temporary files where the next command sweeps what a killed one leaves, and name what the disk refuses.

    They lie below the state folder, if there is one, else below the cache.
    """
    settings = load_settings(config)
    home, cache = settings.home, settings.cache
    with named_disk_errors(home):
        need_folder(home)
        with suppress(OSError):  # then temporary files stay where the system has them
            sweep(cache) if home.is_dir() else private_folder(cache)
        with temporary_files_below(home if home.is_dir() else cache):
            yield
