"""The `tunegate` program: the top level, errors and exit codes.

Data goes to stdout (`--json` on every command that has any), everything else to stderr. Exit codes: 0 done, promoted or
nothing to do, 1 internal, 2 configuration, 3 data, 4 training, 5 BLOCK, 6 locked, 7 external service, 8 HOLD, 9 gate
ERROR, 10 UNCOMPARED, 130 and 143 interrupted.
"""

import gc
import io
import os
import shlex
import signal
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.commands import TopLevel
from flows.cli.exit_codes import ABORTED, BROKEN_PIPE, TERMINATED, CtrlCError
from flows.cli.output import to_json, write
from flows.workspace.guard import guard_process, print_traceback
from schemas.errors import TunegateError

app = typer.Typer(
    help="Turn fresh support tickets into a better fine-tuned model, or refuse to.",
    cls=TopLevel,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `tunegate` command: runs it and exits with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_streams()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(TERMINATED))
    guard_process()
    # Imports allocate objects by the million, and few are garbage: collecting at each 700th, as usual, takes a sixth of
    # the CPU time of a run that reuses everything. Its peak of memory is the same.
    gc.set_threshold(10_000, 10, 10)
    try:
        code = app(arguments, prog_name="tunegate", standalone_mode=False)
    except typer.Exit as stop:
        code = stop.exit_code
    except typer.Abort:
        code = ABORTED
    except (CtrlCError, KeyboardInterrupt) as stop:
        code = _report_interrupt(stop, arguments)
    except TunegateError as error:
        code = _report(error, arguments)
    except SystemExit as stop:
        # Code that is not ours may end the process as if all was done; only a signal of ours, and Typer after it has
        # completed words for a shell, ends it so.
        code = (
            stop.code
            if stop.code in (TERMINATED, BROKEN_PIPE) or _completes(arguments)
            else _report_unexpected(stop, arguments)
        )
    except Exception as error:
        code = _report_unexpected(error, arguments)
    sys.exit(code if isinstance(code, int) else 0)


def _open_streams() -> None:
    """Make stdin, stdout and stderr usable however the caller left them.

    One that is closed (`>&-`) becomes the null device: a run keeps its exit code, and no database gets the number of
    a stream that a library writes to. What the encoding of stdout lacks is printed as an escape.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _completes(arguments: list[str]) -> bool:
    """Does Typer answer a shell's completion, install its script or print it?"""
    options = ("--install-completion", "--show-completion")
    return bool(os.environ.get("_TUNEGATE_COMPLETE")) or any(each in options for each in arguments)


def _report_interrupt(stop: BaseException, arguments: list[str]) -> int:
    """One line after Ctrl-C: what was interrupted, and the command that continues or repeats it."""
    command = shlex.join(["tunegate", *arguments])
    if stop.args:
        text = f"{stop}: finished steps and checkpoints are kept; `{command}` continues from there"
    else:
        text = f"`{command}` did not finish; run it again"
    write(f"interrupted: {text}\n", sys.stderr)
    return ABORTED


def _report(error: TunegateError, arguments: list[str]) -> int:
    if "--json" in arguments:
        write(to_json({"error": error.to_json(), "exit_code": error.exit_code}) + "\n", sys.stdout)
    write(f"{error}\n", sys.stderr)
    if "--debug" in arguments:
        print_traceback(error.__context__ or error)
    return error.exit_code


def _report_usage(error: Any, arguments: list[str]) -> int:
    """A fault that the argument parser found."""
    if "--json" in arguments:
        fault = {"code": "usage", "message": error.format_message(), "where": None, "hint": "tunegate COMMAND --help"}
        write(to_json({"error": fault, "exit_code": int(error.exit_code)}) + "\n", sys.stdout)
    error.show()
    return int(error.exit_code)


def _report_unexpected(error: BaseException, arguments: list[str]) -> int:
    if hasattr(error, "show") and hasattr(error, "format_message"):
        return _report_usage(error, arguments)
    # The message of an unexpected error may quote a ticket: only --debug shows it.
    internal = TunegateError(
        f"internal error: {type(error).__name__}", code="TG0001", hint="run it again with --debug for the traceback"
    )
    code = _report(internal, [argument for argument in arguments if argument != "--debug"])
    if "--debug" in arguments:
        print_traceback(error)
    return code


def _version(wanted: bool) -> None:
    if wanted:
        write(f"tunegate {metadata.version('tunegate')}\n", sys.stdout)
        raise typer.Exit


@app.callback()
def common(
    # `main` reads it: it is declared here for the parser to accept and explain it.
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks for errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""
