"""`tunegate ...`: arguments in, exit codes out. Imports nothing heavy, so that `--help` is instant.

Data goes to stdout (`--json` on every command that has any), talk to stderr. Exit codes: 0 done, promoted or nothing
to do, 1 internal, 2 configuration, 3 data, 4 training, 5 BLOCK, 6 locked, 7 external service, 8 HOLD, 9 gate ERROR,
130 and 143 interrupted. The work of each command lies in `flows/commands/`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from flows.cli_curation import add_curation_commands
from flows.cli_deciding import add_deciding_commands
from flows.cli_examples import add_examples
from flows.cli_export import add_export_commands
from flows.cli_gate import gate_app
from flows.cli_operations import add_operations_commands
from flows.cli_options import CONFIG, Config, Json, Pipeline, call, complete_pipeline
from flows.cli_planning import add_planning_commands
from flows.cli_privacy import add_privacy_commands
from flows.cli_registry import add_registry_commands
from flows.cli_removed import refuse_removed
from flows.cli_start import add_start_commands
from flows.workspace.guard import guard_process, say_traceback
from schemas.errors import TunegateError

TERMINATED = 143
BROKEN_PIPE = 141

app = typer.Typer(
    help="Turn fresh support tickets into a better fine-tuned model, or refuse to.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `tunegate` command: runs it and exits with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _terminated)
    guard_process()
    try:
        refuse_removed(arguments)
        code = app(arguments, prog_name="tunegate", standalone_mode=False)
    except typer.Exit as stop:
        code = stop.exit_code
    except typer.Abort:
        code = 130
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
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


def _terminated(_number: int, _frame: FrameType | None) -> None:
    sys.exit(TERMINATED)


def _report(error: TunegateError, arguments: list[str]) -> int:
    from flows.commands.output import to_json, write

    if "--json" in arguments:
        print(to_json({"error": error.to_json(), "exit_code": error.exit_code}))
    write(f"{error}\n", sys.stderr)
    if "--debug" in arguments:
        say_traceback(error.__context__ or error)
    return error.exit_code


def _report_usage(error: Any, arguments: list[str]) -> int:
    """A fault that the argument parser found."""
    if "--json" in arguments:
        from flows.commands.output import to_json

        told = {"code": "usage", "message": error.format_message(), "where": None, "hint": "tunegate COMMAND --help"}
        print(to_json({"error": told, "exit_code": int(error.exit_code)}))
    error.show()
    return int(error.exit_code)


def _report_unexpected(error: BaseException, arguments: list[str]) -> int:
    if hasattr(error, "show") and hasattr(error, "format_message"):
        return _report_usage(error, arguments)
    # Words of an unexpected error may quote a ticket: only --debug shows them.
    internal = TunegateError(
        f"internal error: {type(error).__name__}", code="TG0001", hint="run it again with --debug for the traceback"
    )
    code = _report(internal, [argument for argument in arguments if argument != "--debug"])
    if "--debug" in arguments:
        say_traceback(error)
    return code


def _debug(_value: bool) -> None:
    """`--debug` is read by `main`; declaring it here lets the parser accept and explain it."""


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", callback=_debug, help="Tracebacks for errors.")] = False,
) -> None:
    """Options before the command."""


@app.command()
def run(
    pipeline: Pipeline,
    config: Config = CONFIG,
    again: Annotated[bool, typer.Option("--again", help="Decide anew even if nothing changed.")] = False,
    until: Annotated[str, typer.Option(help="Last stage: curate, finetune, assess or release.")] = "release",
    wait: Annotated[float, typer.Option(help="Seconds to wait for another run of the pipeline.")] = 0.0,
    require_mlflow: Annotated[bool, typer.Option(help="Exit 7 instead of 0 when MLflow is not up to date.")] = False,
    new_ledger: Annotated[
        bool, typer.Option("--new-ledger", help="The ledger is lost: begin anew, without champion and history.")
    ] = False,
    accept_ledger: Annotated[
        bool, typer.Option("--accept-ledger", help="The ledger was put back from a backup: go on with it.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why the ledger is another; kept in the history.")] = "",
    as_json: Json = False,
) -> int:
    """Run a pipeline from tickets to a verdict; the champion moves only with PROMOTE."""
    return call(
        "run", "run", pipeline=pipeline, config=config, again=again, until=until, wait_s=wait,
        require_mlflow=require_mlflow, new_ledger=new_ledger, accept_ledger=accept_ledger, reason=reason,
        as_json=as_json,
    )  # fmt: skip


@app.command()
def plan(pipeline: Pipeline, config: Config = CONFIG, as_json: Json = False) -> int:
    """Say what would run and why, what is reused, how long and how large; writes nothing."""
    return call("plan", "plan", pipeline=pipeline, config=config, as_json=as_json)


@app.command()
def validate(config: Config = CONFIG, as_json: Json = False) -> int:
    """Check pipelines.yaml; all errors at once, each with its place."""
    return call("config", "validate", config=config, as_json=as_json)


@app.command()
def schema(_as_json: Json = False) -> int:
    """Print the JSON Schema of pipelines.yaml, for editors; it is JSON with and without `--json`."""
    return call("config", "schema")


@app.command()
def runs(
    pipeline: Annotated[
        str | None, typer.Argument(help="Only this pipeline.", show_default=False, autocompletion=complete_pipeline)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest runs shown.")] = 20,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """List runs, newest first."""
    return call("history", "runs", pipeline=pipeline, limit=limit, config=config, as_json=as_json)


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Run id, or the start of one.", show_default=False)],
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Show one run: its steps, what was reused, the gate's findings."""
    return call("history", "show", run_id=run_id, config=config, as_json=as_json)


@app.command()
def report(
    run_id: Annotated[str | None, typer.Argument(metavar="RUN", help="Run id, or the start of one.")] = None,
    last: Annotated[
        str | None, typer.Option(metavar="PIPELINE", help="The pipeline's last run with a verdict.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the page here as well.", show_default=False)] = None,
    items: Annotated[int, typer.Option(min=0, max=1000, help="Worst items shown, redacted; 0 shows no text.")] = 5,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Write a run's report: one page to look at or to send, and JSON, a comment and a JUnit file beside it."""
    return call(
        "report", "report", run_id=run_id, last=last, out_file=out, n_items=items, config=config, as_json=as_json
    )


@app.command()
def status(config: Config = CONFIG, as_json: Json = False) -> int:
    """Say what is running, who is champion and which servers are up."""
    return call("history", "status", config=config, as_json=as_json)


@app.command()
def predict(
    pipeline: Pipeline,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Ticket text; stdin if not given.")] = None,
    subject: Annotated[str, typer.Option(help="Subject line of the ticket.")] = "",
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Let the champion answer a ticket."""
    return call("champion", "predict", pipeline=pipeline, file=file, subject=subject, config=config, as_json=as_json)


@app.command()
def up(config: Config = CONFIG, as_json: Json = False) -> int:
    """Start the local Prefect and MLflow servers (loopback only) and say where they are."""
    return call("servers", "up", config=config, as_json=as_json)


@app.command()
def down(config: Config = CONFIG, as_json: Json = False) -> int:
    """Stop the local servers."""
    return call("servers", "down", config=config, as_json=as_json)


@app.command()
def explain(
    code: Annotated[str, typer.Argument(help="Error code, such as TG0220; TG02 gives its range.", show_default=False)],
    as_json: Json = False,
) -> int:
    """Say what an error code means and what to do."""
    return call("explain", "explain", code=code, as_json=as_json)


@app.command()
def doctor(config: Config = CONFIG, as_json: Json = False) -> int:
    """Check the machine, the state folder, the champion's files and the servers."""
    return call("doctor", "doctor", config=config, as_json=as_json)


add_start_commands(app)
add_curation_commands(app)
app.add_typer(gate_app, name="gate")
add_planning_commands(app)
add_deciding_commands(app)
add_registry_commands(app)
add_privacy_commands(app)
add_operations_commands(app)
add_export_commands(app)
add_examples(app)


if __name__ == "__main__":
    main()
