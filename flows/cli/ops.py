"""`tunegate ops doctor`, `reconcile`, `migrate` and `metrics`: health and maintenance."""

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.champion.mlflow_sync import reconcile as reconcile_ledger
from flows.cli.command import command
from flows.cli.options import CONFIG, Config
from flows.cli.output import Result, warn
from flows.ledger.ledger import Ledger
from flows.ledger.migrate import copy_ledger, ledger_digest
from flows.ledger.open import open_ledger
from flows.schedule.slots import slots
from flows.views.doctor import CHECKS, Patient, examine
from flows.views.metrics import exposition
from flows.workspace.settings import load_settings
from schemas.counted import counted


@command(example="tunegate ops doctor --json")
def doctor(config: Config = CONFIG) -> Result:
    """Check the machine, the state folder and the servers.

    Also whether the champion's files are whole. Exit code 1 when a finding is bad.
    """
    patient = Patient(load_settings(config), config, os.environ)
    findings = [finding for check in (*CHECKS, slots) for finding in examine(check, patient)]
    fit = all(finding.state != "bad" for finding in findings)
    text = (
        f"{each.state:<4} {each.what:<14} {each.message}{f'   -> {each.fix}' if each.fix else ''}" for each in findings
    )
    return Result({"fit": fit, "findings": [asdict(finding) for finding in findings]}, text, exit_code=0 if fit else 1)


@command(example="tunegate ops reconcile")
def reconcile(config: Config = CONFIG) -> Result:
    """Bring MLflow up to date with the ledger; may be repeated.

    Aliases that others moved are put back. Exit code 7 when MLflow does not answer.
    """
    settings = load_settings(config)
    done = reconcile_ledger(open_ledger(settings), settings)
    if done.late is not None:
        raise done.late

    def text() -> Iterator[str]:
        yield f"MLflow is up to date ({counted(done.n_synced, 'change')} synchronised)"
        for alias in done.repaired:
            warn(f"{alias} was wrong in MLflow: it was moved without the ledger")

    return Result({"synced": done.n_synced, "repaired": list(done.repaired)}, text())


@command(example="tunegate ops migrate --ledger-to copy")
def migrate(
    ledger_to: Annotated[
        str, typer.Option(help="Where to: postgresql://... or a folder; without a ledger so far.", show_default=False)
    ],
    config: Config = CONFIG,
) -> Result:
    """Copy the ledger to another database or folder, with its history.

    The copy has the same rows and hashes. The ledger itself stays: TUNEGATE_LEDGER_URL or TUNEGATE_HOME names the one
    to use.
    """
    settings = load_settings(config)
    source = open_ledger(settings)
    target = Ledger(settings.home, ledger_to) if "://" in ledger_to else Ledger(Path(ledger_to))
    n_rows = sum(copy_ledger(source, target).values())
    digest = ledger_digest(target)
    message = f"copied from {source.kept.place}: {n_rows} rows, digest {digest[:16]}"
    if ledger_digest(source) != digest:
        message = "was copied, but one of the two changed meanwhile: copy it again while nothing runs"
    return Result([{"what": target.kept.place, "message": message}], [f"{target.kept.place}: {message}"])


@command(example="tunegate ops metrics > tunegate.prom", json=False)
def metrics(config: Config = CONFIG) -> int:
    """Print the ledger's figures as Prometheus metrics.

    Runs, champions, rows, times, and changes that MLflow does not have yet.
    """
    settings = load_settings(config)
    sys.stdout.write(exposition(settings).decode())
    with open_ledger(settings).read():  # a ledger that is refused is a metric for the alert, and an exit code
        return 0
