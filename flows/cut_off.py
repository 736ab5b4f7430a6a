"""A run that was killed, or failed, between its promotion and its end: its verdict stands, and is not asked for again.

Judged anew its candidate would be compared with itself, and HOLD would be on record for a promotion that was earned.
Called by `flows/pipeline.py` behind curation, so that the pipeline's mark moves as it would have.
"""

from __future__ import annotations

from flows.outcome import Outcome, outcome_of
from flows.project import synchronise
from flows.session import Session, input_digest

CUT_OFF = ("INTERRUPTED", "FAILED")
"""How such a run ends: without a word, or with one, as when the disk refuses what comes after the promotion."""


def finish_cut_off(session: Session) -> Outcome | None:
    """The end of a run on the same inputs whose candidate is champion already; null when there is no such run."""
    champion = session.champion
    if champion is None:
        return None
    last = next((row for row in session.ledger.runs(pipeline=session.spec.name) if row.run_id == champion.run_id), None)
    if last is None or last.status not in CUT_OFF or last.input_digest != input_digest(session):
        return None
    late = synchronise(session.ledger, session.settings)
    if late is not None:
        session.listeners.noted(f"MLflow sync pending: {late.message}; `tunegate reconcile` later")
    reason = f"run {last.run_id} was cut off behind its promotion; its verdict stands"
    return outcome_of(session, "PROMOTE", reason, version=champion.version)
