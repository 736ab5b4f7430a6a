"""Results of a pipeline's last complete run that a new run builds on.

Splits stay stable as data grows, drift is measured against the last card, and volume against the last checks.
Called by `flows/run/open_run.py` and `tunegate plan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from schemas.artifacts import Artifact, CheckResults, CurationCard, Splits

RECENT_RUNS = 100
A = TypeVar("A", bound=Artifact)


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
        keys = {step.step: step.key for step in ledger.steps(run.run_id) if step.key}

        def stored(name: str, returns: type[A], keys: dict[str, str] = keys) -> A | None:
            found = store.look(name, keys[name], returns, deep=True) if name in keys else None
            return found if isinstance(found, returns) else None

        split = stored("split", Splits)
        if split is not None:
            return PreviousRun(split=split, card=stored("card", CurationCard), checks=stored("checks", CheckResults))
    return PreviousRun()
