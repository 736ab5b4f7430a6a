"""`tunegate forget` and `lineage`: arguments; the work is in `flows/commands/`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli_options import CONFIG, Config, Json, call


def add_privacy_commands(app: typer.Typer) -> None:
    """Give the application the commands for the people whose tickets are learned from."""
    for command in (forget, lineage):
        app.command()(command)


def forget(
    customer: Annotated[
        str | None, typer.Argument(help="The customer's id, as in the source.", show_default=False)
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what is held where; remove nothing.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it, and keep the customer out from now on.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Apply every earlier removal anew, after a backup was put back.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; kept in ledger and certificate.")] = "",
    by: Annotated[str | None, typer.Option(help="Who decides; your login if not given.", show_default=False)] = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Keep out a customer of whom nothing is held, too.")
    ] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Find or remove everything that is held of a customer, and mark the models that learned from it."""
    return call(
        "forget", "forget", customer=customer, plan=plan, apply=apply, again=again, reason=reason, by=by,
        unknown=unknown, config=config, as_json=as_json,
    )  # fmt: skip


def lineage(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|TICKET|CUSTOMER",
            help="NAME/VERSION or NAME of a model, a ticket's id, or a customer's, as in the source.",
            show_default=False,
        ),
    ],
    pipeline: Annotated[str | None, typer.Option(help="Only this pipeline; else all that have a warehouse.")] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Say what became of a ticket or a customer's tickets and who learned from them, or what a model was made from."""
    return call("lineage", "lineage", what=what, pipeline=pipeline, config=config, as_json=as_json)
