"""What a person decides about champions: the ledger moves first, MLflow and Prefect follow.

When MLflow does not answer, the decision is kept, a warning says `sync pending` and the exit code stays 0:
`tunegate ops reconcile` catches up.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

from flows.cli.output import note, out, print_json, warn
from flows.ledger.ledger import Ledger
from flows.ledger.opened import open_ledger
from flows.ledger.rows import ENTRIES, MOVES, EventRow
from flows.workspace.servers import client_environment, running
from flows.workspace.settings import Settings, load_settings
from schemas.errors import TunegateError
from schemas.load import load_file
from tasks.files import verify


def registry_of(pipeline: str, config: Path) -> tuple[Settings, Ledger, str]:
    """The settings, the ledger, and the name under which the pipeline registers its models."""
    settings = load_settings(config)
    return settings, open_ledger(settings), load_file(config).get(pipeline).registry.name


def event_json(event: EventRow) -> dict[str, Any]:
    """As `--json` prints it."""
    return {**asdict(event), "forced": event.action == "force"}


def report_decision(event: EventRow, sentence: str, late: TunegateError | None, *, as_json: bool) -> int:
    """Print what was decided, and on stderr why MLflow does not show it yet; returns exit code 0."""
    if late is not None:
        warn(f"MLflow sync pending: {late.message}; `tunegate ops reconcile` later")
    if as_json:
        champion = event.to_version if event.action in MOVES else event.from_version
        print_json(
            {"name": event.name, "champion": champion, "event": event_json(event), "mlflow_pending": late is not None}
        )
    else:
        out().print(sentence, markup=False)
    return 0


def check_bundle(ledger: Ledger, name: str, to: str | None) -> None:
    """Refuse to go back to a damaged bundle. Whether the version may be gone back to is the ledger's to say.

    Raises:
        StorageError: a file of the earlier champion's bundle is missing or altered.
    """
    entered = {event.to_version for event in ledger.history(name) if event.action in ENTRIES}
    target = to if to is not None else ledger.previous(name)
    row = ledger.candidate(name, target) if target is not None and target in entered else None
    if row is not None:
        verify(row.ref.bundle.root)


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
