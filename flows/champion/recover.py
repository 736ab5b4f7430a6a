"""A run that was killed, or failed, between its promotion and its end: its verdict stands, and is not asked for again.

Judged anew its candidate would be compared with itself, and HOLD would be on record for a promotion that was earned.
Called by `flows/pipeline.py` behind curation, so that the pipeline's mark moves as it would have.
"""

from __future__ import annotations

from flows.champion.mlflow_sync import synchronise
from flows.context.outcome import Outcome, outcome_of
from flows.context.run_context import RunContext

CUT_OFF = ("INTERRUPTED", "FAILED")
"""How such a run ends: without a word, or with one, as when the disk refuses what comes after the promotion."""


def finish_cut_off(run: RunContext) -> Outcome | None:
    """The end of a run on the same inputs whose candidate is champion already; None when there is no such run."""
    champion = run.standing.champion
    if champion is None:
        return None
    last = next((row for row in run.ledger.runs(pipeline=run.spec.name) if row.run_id == champion.run_id), None)
    if last is None or last.status not in CUT_OFF or last.input_digest != run.input_digest:
        return None
    late = synchronise(run.ledger, run.settings)
    if late is not None:
        run.listeners.noted(f"MLflow sync pending: {late.message}; `tunegate ops reconcile` later")
    reason = f"run {last.run_id} was cut off behind its promotion; its verdict stands"
    return outcome_of(run.ledger, run.run_id, "PROMOTE", reason, version=champion.version)
