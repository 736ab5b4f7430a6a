"""The `tunegate` program: the top level, errors and exit codes.

Data goes to stdout (`--json` on every command that has any), everything else to stderr. Exit codes: 0 done, promoted or
nothing to do, 1 internal, 2 configuration, 3 data, 4 training, 5 BLOCK, 6 locked, 7 external service, 8 HOLD, 9 gate
ERROR, 10 UNCOMPARED, 130 and 143 interrupted.
"""

import os
import shlex
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import flows.cli.data as data
import flows.cli.gate as gate
import flows.cli.model as model
import flows.cli.ops as ops
import flows.cli.study as study
import flows.cli.weekly as weekly
from flows.cli.command import CtrlCError, group
from flows.cli.exit_codes import ABORTED, BROKEN_PIPE, TERMINATED
from flows.cli.output import to_json, write
from flows.workspace.guard import guard_process, print_traceback
from schemas.errors import TunegateError


class TopLevel(TyperGroup):
    """The top level: its help fits a terminal of 24 lines."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """The summary without the blank line above it."""
        formatter.write(f"  {self.help}\n")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Commands, then groups, then the names of the options on one line."""
        found = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        width = formatter.width - 4 - max(len(name) for name, _ in found)
        for title, is_group in (("Commands", False), ("Groups (tunegate GROUP --help)", True)):
            formatter.write(f"{title}:\n")
            rows = [(name, each) for name, each in found if isinstance(each, TyperGroup) == is_group]
            with formatter.indentation():
                formatter.write_dl([(name, each.get_short_help_str(width)) for name, each in rows])
        names = [parameter.opts[0] for parameter in self.params if parameter.opts[0] != "--help"]
        formatter.write(f"Options: --help, {', '.join(names)}\n")


app = group(
    "Turn fresh support tickets into a better fine-tuned model, or refuse to.",
    cls=TopLevel,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `tunegate` command: runs it and exits with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _terminate)
    guard_process()
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


def _completes(arguments: list[str]) -> bool:
    """Does Typer answer a shell's completion, install its script or print it?"""
    options = ("--install-completion", "--show-completion")
    return bool(os.environ.get("_TUNEGATE_COMPLETE")) or any(each in options for each in arguments)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    sys.exit(TERMINATED)


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
        from importlib.metadata import version

        write(f"tunegate {version('tunegate')}\n", sys.stdout)
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


app.add_typer(weekly.app)
app.add_typer(data.app, name="data")
app.add_typer(gate.app, name="gate")
app.add_typer(model.app, name="model")
app.add_typer(study.app, name="study")
app.add_typer(ops.app, name="ops")
