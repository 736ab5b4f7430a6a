"""Finish a run that was killed, or failed, between its promotion and its end: its verdict is kept, not judged again.

Judged again, its candidate would be compared with itself, and HOLD would be recorded for a promotion that was earned.
Called by `flows/schedule/worth.py` after curation, so that the pipeline's mark moves as it would have.
"""

from __future__ import annotations

from flows.champion.mlflow_sync import synchronise
from flows.context.outcome import Outcome, outcome_of
from flows.context.run_context import RunContext

UNFINISHED = ("INTERRUPTED", "FAILED")
"""Status of such a run: killed, or failed after the promotion, because the disk was full, say."""


def recover_promotion(run: RunContext) -> Outcome | None:
    """Return the outcome of an unfinished run on the same inputs whose candidate is champion; None without one."""
    champion = run.registry_state.champion
    if champion is None:
        return None
    last = next((row for row in run.ledger.runs(pipeline=run.spec.name) if row.run_id == champion.run_id), None)
    if last is None or last.status not in UNFINISHED or last.input_digest != run.input_digest:
        return None
    late = synchronise(run.ledger, run.settings)
    if late is not None:
        run.listeners.noted(f"MLflow sync pending: {late.message}; `tunegate ops reconcile` later")
    reason = f"run {last.run_id} was interrupted after its promotion; its verdict holds"
    return outcome_of(run.ledger, run.run_id, "PROMOTE", reason, version=champion.version)
