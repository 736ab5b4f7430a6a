"""Counts over the ledger's rows, for those who watch from outside: how many runs ended how, and when last.

It changes nothing and knows nothing of how the numbers are shown (`flows/metrics.py`).
"""

from __future__ import annotations

from typing import NamedTuple

from flows.engine.history import whole_history
from flows.engine.ledger_base import LedgerBase
from schemas.errors import StorageError


class RunTally(NamedTuple):
    """Runs of one pipeline that ended alike."""

    pipeline: str
    status: str
    verdict: str
    """Empty where the run came to none."""
    n_runs: int


class Tallies(LedgerBase):
    """Counts."""

    def tallies(self) -> tuple[RunTally, ...]:
        """Runs by pipeline, status and verdict."""
        with self.read() as db:
            rows = db.execute(
                "SELECT pipeline, status, coalesce(verdict, '') AS verdict, count(*) AS n_runs FROM runs"
                " GROUP BY pipeline, status, coalesce(verdict, '') ORDER BY pipeline, status, 3"
            ).fetchall()
        return tuple(RunTally(row["pipeline"], row["status"], row["verdict"], row["n_runs"]) for row in rows)

    def is_whole(self) -> bool:
        """Is every row what was written, and does the chain of the champions' history hold?"""
        with self.read() as db:
            try:
                whole_history(db)
            except StorageError:
                return False
        return True

    def last_verdicts(self) -> dict[str, str]:
        """Pipeline -> when its newest run with PROMOTE, HOLD or BLOCK ended."""
        with self.read() as db:
            rows = db.execute(
                "SELECT pipeline, max(ended_at) AS at FROM runs WHERE status = 'DONE'"
                " AND verdict IN ('PROMOTE', 'HOLD', 'BLOCK') GROUP BY pipeline ORDER BY pipeline"
            ).fetchall()
        return {row["pipeline"]: row["at"] for row in rows}
