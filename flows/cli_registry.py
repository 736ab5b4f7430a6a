"""`tunegate champion`, `history`, `promote`, `approve`, `rollback`, `reconcile`: arguments; the work is in
`flows/commands/`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli_options import CONFIG, Config, Json, Pipeline, call

Expect = Annotated[
    str | None,
    typer.Option(metavar="VERSION", help="Do nothing unless this version is champion now.", show_default=False),
]
By = Annotated[str | None, typer.Option(help="Who decides; your login if not given.", show_default=False)]


def add_registry_commands(app: typer.Typer) -> None:
    """Give the application the commands about champions."""
    for command in (champion, history, promote, approve, rollback, reconcile):
        app.command()(command)


def champion(pipeline: Pipeline, config: Config = CONFIG, as_json: Json = False) -> int:
    """Show the champion and how it came to be."""
    return call("champion", "champion", pipeline=pipeline, config=config, as_json=as_json)


def history(
    pipeline: Pipeline,
    verify: Annotated[bool, typer.Option("--verify", help="Only check the chain of hashes.")] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Show every decision about the champion: who, why, which digests, forced or not; checks the chain of hashes."""
    return call("registry", "history", pipeline=pipeline, verify_only=verify, config=config, as_json=as_json)


def promote(
    pipeline: Pipeline,
    version: Annotated[str, typer.Argument(help="Version of a candidate.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Skip the gate; the history says so.")] = False,
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")] = "",
    by: By = None,
    expect: Expect = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Make a candidate champion past the gate, on the record."""
    return call(
        "registry", "promote", pipeline=pipeline, version=version, force=force, reason=reason, by=by, expect=expect,
        config=config, as_json=as_json,
    )  # fmt: skip


def approve(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Run whose candidate waits.", show_default=False)],
    by: Annotated[str, typer.Option(help="Who decides; kept in the history.", show_default=False)],
    reject: Annotated[bool, typer.Option("--reject", help="Keep the candidate out.")] = False,
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")] = "",
    expect: Expect = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Let in a candidate that waits for a person, or keep it out."""
    return call(
        "registry", "approve", run_id=run_id, by=by, reject=reject, reason=reason, expect=expect, config=config,
        as_json=as_json,
    )  # fmt: skip


def rollback(
    pipeline: Pipeline,
    reason: Annotated[str, typer.Option(help="Why; kept in the history.", show_default=False)],
    to: Annotated[str | None, typer.Option(help="Version; the previous champion if not given.")] = None,
    by: By = None,
    expect: Expect = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Make an earlier champion champion again; a cooldown begins."""
    return call(
        "registry", "rollback", pipeline=pipeline, reason=reason, to=to, by=by, expect=expect, config=config,
        as_json=as_json,
    )  # fmt: skip


def reconcile(config: Config = CONFIG, as_json: Json = False) -> int:
    """Bring MLflow up to date with the ledger; may be repeated at any time."""
    return call("registry", "reconcile", config=config, as_json=as_json)
