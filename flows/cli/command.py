"""How a function becomes a command: its example, and the state folder that it works in."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import typer

from flows.cli.options import CONFIG
from flows.workspace.settings import load_settings

F = TypeVar("F", bound=Callable[..., int])


class CtrlCError(Exception):
    """A person pressed Ctrl-C in a command; Typer would end on KeyboardInterrupt without a word.

    Its argument is the run that was interrupted, if there is one.
    """


def group(summary: str, **settings: Any) -> typer.Typer:
    """An application without commands yet.

    Its help is plain text: rich's panels take 0.35 s to import and need more lines than a terminal has.
    """
    return typer.Typer(help=summary, no_args_is_help=True, rich_markup_mode=None, **settings)


def command(app: typer.Typer, *, example: str) -> Callable[[F], F]:
    """Make a function a command of `app`: its name is the command's, its docstring the help, the example below it."""

    def register(function: F) -> F:
        reads_config = "config" in inspect.signature(function).parameters

        @functools.wraps(function)
        def run_command(**arguments: Any) -> int:
            try:
                if not reads_config:
                    return function(**arguments)
                with _workspace(arguments.get("config", CONFIG)):
                    return function(**arguments)
            except KeyboardInterrupt as stop:
                raise CtrlCError(*stop.args) from stop

        app.command(function.__name__.rstrip("_").replace("_", "-"), epilog=f"Example: {example}")(run_command)
        return cast("F", run_command)

    return register


@contextmanager
def _workspace(config: Path) -> Iterator[None]:
    """Put temporary files where the next command sweeps what a killed one leaves, and name what the disk refuses.

    They lie below the state folder, if there is one, else below the cache.
    """
    from flows.workspace.disk import named_disk_errors, need_folder, private_folder
    from flows.workspace.temporary import sweep, temporary_files_below

    settings = load_settings(config)
    home, cache = settings.home, settings.cache
    with named_disk_errors(home):
        need_folder(home)
        with suppress(OSError):  # then temporary files stay where the system has them
            sweep(cache) if home.is_dir() else private_folder(cache)
        with temporary_files_below(home if home.is_dir() else cache):
            yield
