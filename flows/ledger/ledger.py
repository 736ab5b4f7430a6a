"""The ledger: the truth about runs, steps, verdicts and champions. MLflow and Prefect are projections of it.

`Runs` (`flows/ledger/runs.py`), `Ticks` (`ticks.py`), `Approvals` (`promotions.py`, on `champions.py`) and
`Forgettings` (`forgettings.py`) over one SQLite file, `ledger.sqlite` in the home folder, or over a Postgres that
several hosts share. Here are `Tallies`, figures over all runs for `tunegate ops metrics`, and `Acceptances`: that a
person accepted a ledger which is not the one that was here before.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from flows.ledger.base import LedgerBase
from flows.ledger.erasures import Forgettings
from flows.ledger.history import whole_history
from flows.ledger.journal import check_books, identity
from flows.ledger.promotions import Approvals
from flows.ledger.rows import AcceptanceRow
from flows.ledger.runs import Runs, now
from flows.ledger.ticks import Ticks
from schemas.errors import ConfigError, StorageError


class Acceptances(LedgerBase):
    """Acceptances."""

    def accept(self, kind: Literal["new", "restored"], *, reason: str, actor: str) -> AcceptanceRow:
        """Go on with a new ledger, or with the one that lies here; from now on it is the one that is witnessed.

        Raises:
            ConfigError: TG0139, no reason was given.
            StorageError: TG0581, `new` where there is a ledger, `restored` where there is none; TG0580, it was altered:
                what somebody wrote into it is not accepted.
        """
        if not reason.strip():
            raise ConfigError("to accept a ledger needs a reason", code="TG0139", where="ledger", hint="--reason 'why'")
        with self.read() as db:
            check_books(db)
            is_there = identity(db) is not None
        if (kind == "new") == is_there:
            told, other = ("there is a ledger", "accept") if is_there else ("there is no ledger", "new")
            raise StorageError(
                f"{told} at {self.kept.place}", code="TG0581", where="ledger", hint=f"--{other}-ledger --reason TEXT"
            )
        former = "" if self.witness is None else self.witness.told()
        row = AcceptanceRow(kind, reason, actor, former, now())
        with self.kept.write() as db:  # past the witness: that is what is decided here
            db.execute(
                "INSERT INTO acceptances (kind, reason, actor, former, at) VALUES (?, ?, ?, ?, ?)",
                (row.kind, row.reason, row.actor, row.former, row.at),
            )
        if self.witness is not None:
            self.witness.move(self._last_line, back=True)
        return row

    def identity(self) -> str | None:
        """Which ledger it is, wherever it is copied to; None before its first row."""
        with self.read() as db:
            return identity(db)

    def acceptances(self) -> tuple[AcceptanceRow, ...]:
        """All of them, oldest first."""
        with self.read() as db:
            rows = db.execute("SELECT kind, reason, actor, former, at FROM acceptances ORDER BY id").fetchall()
        return tuple(AcceptanceRow(*row) for row in rows)


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


class Ledger(Runs, Ticks, Tallies, Approvals, Forgettings, Acceptances):
    """`Ledger(home)`, or `Ledger(home, "postgresql://...")`; making it touches nothing, reading creates nothing."""
