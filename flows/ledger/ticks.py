"""The ledger's book of ticks: what each decided, by which numbers, and the marks that verdicts left.

A mark (which tickets there were, up to which time) is set in the transaction that closes a run with a verdict, so
that no ticket is missed or counted as new twice, wherever a run is killed. New tickets are counted from the last mark
whose candidate met its rules: those of a HOLD or BLOCK stay new.
"""

from dataclasses import dataclass

from flows.ledger.base import LedgerBase
from flows.ledger.database import Database, Row
from flows.workspace.clock import now
from schemas.schedule import Cause, Decision
from tasks.storage.failpoint import reach


@dataclass(frozen=True)
class TickRow:
    seq: int
    run_id: str
    pipeline: str
    cause: Cause
    at: str
    scheduled_for: str
    """The scheduled time; empty for an event or a person."""
    decision: Decision


@dataclass(frozen=True)
class Mark:
    """What a verdict was about."""

    run_id: str
    pipeline: str
    snapshot_id: str
    watermark: str
    """Newest time in the curated tickets, UTC, ISO 8601; it never moves back. Empty if no ticket has a time."""
    n_tickets: int
    at: str
    """When the verdict was given."""


class Ticks(LedgerBase):
    def record_tick(self, run_id: str, *, pipeline: str, cause: Cause, scheduled_for: str, decision: Decision) -> None:
        """Record what a tick decided, before acting on it."""
        with self.write() as db:
            self._note(db, run_id, pipeline, cause, scheduled_for, decision)
        reach("ledger.tick")

    def record_skip(
        self, run_id: str, *, pipeline: str, model_name: str, cause: Cause, scheduled_for: str, decision: Decision
    ) -> None:
        """Record a tick that opened no run as a skipped run: because another run is in progress, say."""
        with self.write() as db:
            at = now()
            db.execute(
                "INSERT INTO runs (run_id, pipeline, model_name, status, config_json, started_at, ended_at, reason,"
                " exit_code) VALUES (?, ?, ?, 'SKIPPED', '{}', ?, ?, ?, 0)",
                (run_id, pipeline, model_name, at, at, decision.reason),
            )
            self._note(db, run_id, pipeline, cause, scheduled_for, decision)

    def ticks(self, pipeline: str, *, limit: int = 100) -> tuple[TickRow, ...]:
        """Return the newest ticks of the pipeline, oldest first."""
        rows = self._rows("SELECT * FROM ticks WHERE pipeline = ? ORDER BY seq DESC LIMIT ?", pipeline, limit)
        return tuple(_tick(row) for row in reversed(rows))

    def tick_of(self, run_id: str) -> TickRow | None:
        """Return the last decision of this run; None if no tick made it."""
        row = self._first("SELECT * FROM ticks WHERE run_id = ? ORDER BY seq DESC LIMIT 1", run_id)
        return _tick(row) if row else None

    def mark(self, pipeline: str, *, judged: bool = False) -> Mark | None:
        """Return what the last verdict was about; None before the first.

        Args:
            judged: Leave out runs of data alone, whose end is a mark too.
        """
        trained = "AND run_id IN (SELECT run_id FROM runs WHERE model_name <> '')" if judged else ""
        row = self._first(f"SELECT * FROM marks WHERE pipeline = ? {trained} ORDER BY seq DESC LIMIT 1", pipeline)
        return _mark(row) if row else None

    def used_mark(self, pipeline: str) -> Mark | None:
        """Return what the last verdict was about whose candidate used its tickets; None before the first.

        Such a candidate met its rules (PROMOTE, UNCOMPARED), or a person made it champion, or it waits for a person.
        """
        row = self._first(
            "SELECT marks.* FROM marks JOIN runs ON runs.run_id = marks.run_id WHERE marks.pipeline = ?"
            " AND (runs.verdict IN ('PROMOTE', 'UNCOMPARED')"
            " OR (SELECT action FROM champion_events AS events WHERE events.run_id = marks.run_id"
            " ORDER BY events.seq DESC LIMIT 1) IN ('promote', 'force', 'approve', 'wait'))"
            " ORDER BY marks.seq DESC LIMIT 1",
            pipeline,
        )  # fmt: skip
        return _mark(row) if row else None

    def mark_of(self, run_id: str) -> Mark | None:
        """Return what this run's verdict was about; None if it reached none."""
        row = self._first("SELECT * FROM marks WHERE run_id = ? ORDER BY seq DESC LIMIT 1", run_id)
        return _mark(row) if row else None

    def _note(
        self, db: Database, run_id: str, pipeline: str, cause: Cause, scheduled_for: str, decision: Decision
    ) -> None:
        db.execute(
            "INSERT INTO ticks (run_id, pipeline, cause, at, scheduled_for, decision_json) VALUES (?, ?, ?, ?, ?, ?)",
            (run_id, pipeline, cause, now(), scheduled_for, decision.model_dump_json()),
        )


def set_mark(db: Database, *, run_id: str, pipeline: str, snapshot_id: str, watermark: str, n_tickets: int) -> None:
    """Set the mark inside the transaction that closes the run."""
    before = db.execute("SELECT max(watermark) AS w FROM marks WHERE pipeline = ?", (pipeline,)).fetchone()["w"] or ""
    db.execute(
        "INSERT INTO marks (run_id, pipeline, snapshot_id, watermark, n_tickets, at) VALUES (?, ?, ?, ?, ?, ?)",
        (run_id, pipeline, snapshot_id, max(before, watermark), n_tickets, now()),
    )


def _tick(row: Row) -> TickRow:
    fields = dict(row)
    return TickRow(decision=Decision.model_validate_json(fields.pop("decision_json")), **fields)


def _mark(row: Row) -> Mark:
    return Mark(**{name: row[name] for name in row.keys() if name != "seq"})  # noqa: SIM118 - a row iterates values
