"""The ledger's book of acceptances: a person takes a ledger that is not the one that was here before, and says why."""

from __future__ import annotations

from typing import Literal

from flows.engine.ledger_base import LedgerBase
from flows.engine.ledger_journal import check_books, identity
from flows.engine.rows import AcceptanceRow
from flows.engine.runs import now
from schemas.errors import ConfigError, StorageError


class Acceptances(LedgerBase):
    """Acceptances."""

    def accept(self, kind: Literal["new", "restored"], *, reason: str, actor: str) -> AcceptanceRow:
        """Go on with a new ledger, or with the one that lies here; from now on it is the one that is witnessed.

        Raises:
            ConfigError: TG0154, no reason was given.
            StorageError: TG0581, `new` where there is a ledger, `restored` where there is none; TG0580, it was altered:
                what somebody wrote into it is not accepted.
        """
        if not reason.strip():
            raise ConfigError("to accept a ledger needs a reason", code="TG0154", where="ledger", hint="--reason 'why'")
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
