"""`tunegate run --new-ledger` and `--accept-ledger`: a person goes on with another ledger than before."""

from __future__ import annotations

import getpass

from flows.champion.mlflow_sync import reconcile
from flows.commands.output import talk
from flows.ledger.opened import open_ledger
from flows.workspace.settings import Settings


def accept_by_hand(settings: Settings, *, new: bool, reason: str) -> None:
    """Enter who accepts the ledger and why; MLflow follows it, if it answers.

    Raises:
        ConfigError: TG0139, no reason was given.
        StorageError: TG0580 it was altered, TG0581 there is none to accept, or one where a new one was asked for.
    """
    ledger = open_ledger(settings)
    row = ledger.accept("new" if new else "restored", reason=reason, actor=login())
    told = "a new ledger begins" if new else "the ledger that lies here is accepted"
    talk().print(f"{told}: {row.reason} ({row.actor})", markup=False)
    late = reconcile(ledger, settings).late
    if late is not None:
        talk().print(f"warning MLflow sync pending: {late.message}; `tunegate reconcile` later", markup=False)


def login() -> str:
    """The login's name; in a container there may be none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "command line"
