"""What follows when a person answers a candidate that waits: files checked, champion moved, MLflow told.

The command line (`tunegate model approve`) and Prefect's page (`flows/schedule/approval.py`) both end here; the ledger
keeps who, when and why. Neither knows who really sits there: `by` is what the person says.
"""

from __future__ import annotations

from dataclasses import dataclass

from flows.champion.mlflow_sync import synchronise
from flows.ledger.ledger import Ledger
from flows.ledger.rows import EventRow
from flows.workspace.settings import Settings
from schemas.errors import TunegateError
from tasks.release.bundle import check_evaluated


@dataclass(frozen=True)
class Answered:
    """The ledger's event, and what MLflow could not be told."""

    event: EventRow
    late: TunegateError | None


def answer(
    ledger: Ledger, settings: Settings, run_id: str, *, approve: bool, by: str, reason: str = "",
    expected: str | None = None,
) -> Answered:  # fmt: skip
    """Approve or reject the run's candidate.

    Args:
        expected: The champion that it is to take over from; None is whoever it is.

    Raises:
        GateError: it does not wait, was answered otherwise, or its verdict is stale (TG0620, TG0621).
        StorageError: TG0549, what would become champion is not what was evaluated.
    """
    if not approve:
        event = ledger.reject(run_id, actor=by, reason=reason)
        return Answered(event, synchronise(ledger, settings))
    asked = {(e.name, e.to_version) for e in ledger.history() if (e.action, e.run_id) == ("wait", run_id)}
    for name, version in asked:
        row = ledger.candidate(name, version)
        if row is not None:
            check_evaluated(row.ref.bundle, row.ref.trained)
    event = ledger.approve(run_id, actor=by, reason=reason, expected=expected)
    return Answered(event, synchronise(ledger, settings))
