"""Results of a pipeline's last complete run that a new run builds on.

Splits stay stable as data grows, drift is measured against the last card, and volume against the last checks.
"""

from dataclasses import dataclass

from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from schemas.artifacts import CheckResults, CurationCard, Splits

RECENT_RUNS = 100


@dataclass(frozen=True)
class PreviousRun:
    """Results of the newest completed run; each is None if there is none, or its files are gone."""

    split: Splits | None = None
    card: CurationCard | None = None
    checks: CheckResults | None = None


def find_previous_run(ledger: Ledger, store: Store, pipeline: str, *, before: str | None = None) -> PreviousRun:
    """Find it in the ledger; change nothing. Runs that failed or were killed, and those with `--as-of`, do not count.

    Args:
        before: Only runs that started before this moment, UTC, ISO 8601.
    """
    for run in ledger.runs(limit=RECENT_RUNS, pipeline=pipeline):
        if run.status != "DONE" or run.as_of is not None or (before is not None and run.started_at >= before):
            continue
        keys = ledger.keys_of(run.run_id)
        split = store.whole("split", keys.get("split"), Splits, deep=True)
        if split is not None:
            return PreviousRun(
                split=split,
                card=store.whole("card", keys.get("card"), CurationCard, deep=True),
                checks=store.whole("checks", keys.get("checks"), CheckResults, deep=True),
            )
    return PreviousRun()
