"""What the last complete run of a pipeline left that a new one goes on from.

Splits stay stable as data grows, and drift is told against the last card.
Called by `flows/run/open_run.py` and `tunegate plan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from schemas.artifacts import Artifact, CurationCard, Splits

RECENT_RUNS = 100
A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True)
class Earlier:
    """Results of the newest run that came to its end; each None when there is none, or its files are gone."""

    split: Splits | None = None
    card: CurationCard | None = None


def earlier_results(ledger: Ledger, store: Store, pipeline: str) -> Earlier:
    """Look through the ledger; changes nothing. A run that failed or was killed is not gone on from."""
    for run in ledger.runs(limit=RECENT_RUNS, pipeline=pipeline):
        if run.status != "DONE":
            continue
        keys = {step.step: step.key for step in ledger.steps(run.run_id) if step.key}

        def stored(name: str, returns: type[A], keys: dict[str, str] = keys) -> A | None:
            found = store.look(name, keys[name], returns, deep=True) if name in keys else None
            return found if isinstance(found, returns) else None

        split = stored("split", Splits)
        if split is not None:
            return Earlier(split=split, card=stored("card", CurationCard))
    return Earlier()
