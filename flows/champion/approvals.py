"""Approve or reject a candidate that waits: check its files, move the champion, update MLflow.

The command line (`tunegate model approve`) and Prefect's page (`flows/schedule/approval.py`) both call this; the ledger
records who, when and why. Neither authenticates the person: `by` is the name that was given.
"""

from dataclasses import dataclass

from flows.champion.mlflow_sync import decide
from flows.ledger.ledger import Ledger
from flows.ledger.rows import CandidateRow, EventRow
from flows.workspace.settings import Settings
from schemas.errors import TunegateError
from tasks.release.bundle import check_digest, check_evaluated


@dataclass(frozen=True)
class ApprovalAnswer:
    """A person's decision about a candidate that waits."""

    approve: bool
    by: str
    reason: str = ""
    expected: str | None = None
    """The champion that it replaces; None is any."""


def answer(
    ledger: Ledger, settings: Settings, run_id: str, given: ApprovalAnswer
) -> tuple[EventRow, TunegateError | None]:
    """Approve or reject the run's candidate; return the ledger's event, and the error if MLflow could not be updated.

    Raises:
        GateError: it does not wait, was decided otherwise, or its verdict is stale (TG0620, TG0621).
        StorageError: TG0549, the files are not those that were evaluated; TG0581, MLflow's model does not follow this
            ledger.
    """
    name = ledger.run(run_id).model_name
    if not given.approve:
        return decide(ledger, settings, name, lambda: ledger.reject(run_id, actor=given.by, reason=given.reason))

    def approve() -> EventRow:
        for event in ledger.history(name):
            if (event.action, event.run_id) == ("wait", run_id):
                check_files(ledger, name, event.to_version)
        return ledger.approve(run_id, actor=given.by, reason=given.reason, expected=given.expected)

    return decide(ledger, settings, name, approve)


def check_files(ledger: Ledger, name: str, version: str) -> None:
    """Check the files of a version that shall become champion; whether there is one is the ledger's to say.

    Raises:
        StorageError: TG0549, they are not those that were evaluated; TG0510, they do not match their own manifests.
    """
    row = ledger.version(name, version)
    if isinstance(row, CandidateRow):
        check_evaluated(row.ref.bundle, row.ref.trained)
    elif row is not None:
        check_digest(row.ref.files)
