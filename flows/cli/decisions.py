"""`tunegate model promote`, `approve` and `rollback`: what a person decides about champions.

The ledger moves first, MLflow and Prefect follow. When MLflow does not answer, the decision is kept, a warning says
`sync pending` and the exit code stays 0: `tunegate ops reconcile` catches up.
"""

import os
from typing import Annotated
from uuid import UUID

import typer

from flows.champion.approvals import ApprovalAnswer, answer, check_files
from flows.champion.mlflow_sync import decide
from flows.cli.command import command
from flows.cli.history import event_json, register_of, registry_of
from flows.cli.options import CONFIG, By, Config, Expect, Pipeline, Reason, RunArgument, login
from flows.cli.output import Result, note, warn
from flows.ledger.history import cooldown_of
from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger
from flows.ledger.rows import ENTRIES, MOVES, EventRow
from flows.workspace.clock import present
from flows.workspace.servers import client_environment, running
from flows.workspace.settings import Settings, load_settings
from schemas.counted import counted
from schemas.errors import GateError, TunegateError
from tasks.storage.sealed_folder import verify


@command(example="tunegate model promote support-replies 3 --force --reason 'hand-checked on 200 tickets'")
def promote(
    pipeline: Pipeline,
    version: Annotated[str, typer.Argument(help="Version of a candidate.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Skip the gate; the history says so.")] = False,
    accept_uncompared: Annotated[
        bool, typer.Option("--accept-uncompared", help="Accept the verdict UNCOMPARED; the history says so.")
    ] = False,
    reason: Reason = "",
    by: By = None,
    expect: Expect = None,
    config: Config = CONFIG,
) -> Result:
    """Make a candidate champion past the gate, on the record."""
    settings, ledger, name = registry_of(pipeline, config)
    if not force and not accept_uncompared:
        raise GateError(
            "a promotion by hand skips the gate, and nothing was said to skip it",
            code="TG0621",
            where=pipeline,
            hint="--force --reason '...' does and is kept in the history, as is --accept-uncompared after the verdict "
            "UNCOMPARED; `tunegate model approve RUN` lets in what waits",
        )
    current = ledger.current(name)
    check_files(ledger, name, version)
    expected = expect or (current.version if current else None)
    event, late = decide(
        ledger, settings, name,
        lambda: ledger.force(
            name, expected=expected, version=version, reason=reason, actor=by or login(), uncompared=accept_uncompared
        ),
    )  # fmt: skip
    verdict = f"; the gate had said {event.verdict}" if event.verdict not in ("", "PROMOTE") else ""
    return _decided(event, f"champion of {name} is v{event.to_version}, {event.action} by {event.actor}{verdict}", late)


@command(example="tunegate model approve 20261126-074621 --by ada")
def approve(
    run_id: RunArgument,
    by: Annotated[str, typer.Option(help="Who decides; kept in the history.", show_default=False)],
    reject: Annotated[bool, typer.Option("--reject", help="Keep the candidate out.")] = False,
    reason: Reason = "",
    expect: Expect = None,
    config: Config = CONFIG,
) -> Result:
    """Let in a candidate that waits for a person, or keep it out.

    The answer goes to the ledger, to MLflow, and to Prefect if the run is suspended there.
    """
    settings = load_settings(config)
    ledger = open_ledger(settings)
    row = ledger.run(run_id)
    event, late = answer(ledger, settings, row.run_id, ApprovalAnswer(not reject, by.strip(), reason, expect))
    resume_in_prefect(row.prefect_run_id, settings, approve=not reject, by=by, reason=reason)
    sentence = (
        f"v{event.to_version} of {event.name} was rejected by {event.actor}; the champion stays"
        if event.action == "reject"
        else f"champion of {event.name} is v{event.to_version}, {event.action} by {event.actor}"
    )
    return _decided(event, sentence, late)


@command(example="tunegate model rollback support-replies --reason 'complaints since Monday'")
def rollback(
    pipeline: Pipeline,
    reason: Annotated[str, typer.Option(help="Why; kept in the history.", show_default=False)],
    to: Annotated[str | None, typer.Option(help="Version; the previous champion if not given.")] = None,
    by: By = None,
    expect: Expect = None,
    config: Config = CONFIG,
) -> Result:
    """Make an earlier champion champion again; a cooldown begins."""
    settings, ledger, name = registry_of(pipeline, config)
    _check_bundle(ledger, name, to)
    declared = register_of(pipeline, config, ledger)
    back, late = decide(
        ledger, settings, name,
        lambda: ledger.rollback(
            name, reason=reason, to=to, actor=by or login(), cooldown_days=declared.cooldown_days,
            expected=expect,
        ),
    )  # fmt: skip
    history = ledger.history(name)
    event = next(event for event in reversed(history) if event.action in MOVES)
    cooling = cooldown_of(history, name, at=present())
    rest = f"; promotions need a person until {cooling.until}" if cooling is not None else ""
    if declared.cooldown_items and not ledger.is_checked(name):
        rest += (
            f"; a candidate that was trained in the same way as v{event.from_version} needs one, or "
            f"{counted(declared.cooldown_items, 'held-out item')} that did not judge v{event.from_version}"
        )
    return _decided(event, f"champion of {name} is v{back.version} again{rest}", late)


def _decided(event: EventRow, sentence: str, late: TunegateError | None) -> Result:
    """What was decided; on stderr why MLflow does not show it yet."""
    if late is not None:
        warn(f"MLflow sync pending: {late.message}; `tunegate ops reconcile` later")
    champion = event.to_version if event.action in MOVES else event.from_version
    return Result(
        {"name": event.name, "champion": champion, "event": event_json(event), "mlflow_pending": late is not None},
        [sentence],
    )


def _check_bundle(ledger: Ledger, name: str, to: str | None) -> None:
    """Refuse to go back to a damaged bundle. Whether the version may be gone back to is the ledger's to say.

    Raises:
        StorageError: a file of the earlier champion's bundle is missing or altered.
    """
    entered = {event.to_version for event in ledger.history(name) if event.action in ENTRIES}
    target = to if to is not None else ledger.previous(name)
    row = ledger.version(name, target) if target is not None and target in entered else None
    if row is not None:
        verify(row.ref.files.root)


def resume_in_prefect(flow_run: str | None, settings: Settings, *, approve: bool, by: str, reason: str) -> None:
    """Resume the suspended flow run, so that its page does not ask any more; it finds the answer in the ledger."""
    server = next((server for server in running(settings.home) if server.kind == "prefect"), None)
    if flow_run is None or (server is None and settings.prefect_api_url is None):
        return
    # Prefect reads its settings when it is first imported: only now.
    os.environ.update(client_environment(server if settings.prefect_api_url is None else None))
    from prefect.exceptions import NotPausedError
    from prefect.flow_runs import resume_flow_run

    try:
        resume_flow_run(UUID(flow_run), run_input={"approve": approve, "by": by, "reason": reason})
    except NotPausedError:
        return
    except Exception as error:  # the answer is in the ledger, whatever Prefect says to it
        note(f"the run in Prefect stays suspended: {type(error).__name__}; resume or cancel it there")
