"""The ledger: the source of truth about runs, steps, verdicts and champions. MLflow and Prefect display it.

`Runs` (`flows/ledger/runs.py`), `Ticks` (`ticks.py`), `Approvals` (`promotions.py`, on `champions.py`) and `Erasures`
(`erasures.py`) over one SQLite file, `ledger.sqlite` in the home folder, or over a Postgres that several hosts share.
Here are `Tallies`, figures over all runs for `tunegate ops metrics`, and `Acceptances`: a person's decisions to accept
a ledger that is not the one that was here before.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import orjson

from flows.ledger.base import LedgerBase
from flows.ledger.champions import project
from flows.ledger.erasures import Erasures
from flows.ledger.journal import check_books, identity
from flows.ledger.promotions import Approvals
from flows.ledger.rows import AcceptanceRow
from flows.ledger.runs import Runs
from flows.ledger.ticks import Ticks
from flows.workspace.clock import now
from schemas.errors import ConfigError, StorageError


class Acceptances(LedgerBase):
    def accept(
        self, kind: Literal["new", "restored"], *, reason: str, actor: str, names: Mapping[str, str] | None = None
    ) -> AcceptanceRow:
        """Continue with a new ledger, or with the one that is here; the witness and MLflow follow it from now on.

        Args:
            names: Other registered models that shall follow it, with the address that their pipeline declares: this
                ledger may be older than their first version.

        Raises:
            ConfigError: TG0139, no reason was given.
            StorageError: TG0581, `new` where there is a ledger, `restored` where there is none; TG0580, another program
                wrote into it, which is not accepted.
        """
        if not reason.strip():
            raise ConfigError("accepting a ledger needs a reason", code="TG0139", where="ledger", hint="--reason 'why'")
        with self.kept.read() as db:  # without the witness, which is overruled here
            check_books(db)
            exists = identity(db) is not None
        if (kind == "new") == exists:
            found, other = ("there is a ledger", "accept") if exists else ("there is no ledger", "new")
            raise StorageError(
                f"{found} at {self.kept.place}", code="TG0581", where="ledger", hint=f"--{other}-ledger --reason TEXT"
            )
        former = "" if self.witness is None else self.witness.last_seen_json()
        row = AcceptanceRow(kind, reason, actor, former, now())
        with self.kept.write() as db:
            db.execute(
                "INSERT INTO acceptances (kind, reason, actor, former, at) VALUES (?, ?, ?, ?, ?)",
                (row.kind, row.reason, row.actor, row.former, row.at),
            )
            rows = db.execute("SELECT name, ref_json FROM candidates").fetchall()
            known = [row["name"] for row in rows if "trained" in orjson.loads(row["ref_json"])]
            for name in sorted({*known, *(names or {})}):
                project(db, "claim", {"name": name, "run_id": "", "tracking_uri": (names or {}).get(name, "")})
        if self.witness is not None:
            self.witness.move(self._last_line, back=True)
        return row

    def identity(self) -> str | None:
        """Return the ledger's id, which its copies share; None before its first row."""
        with self.read() as db:
            return identity(db)

    def acceptances(self) -> tuple[AcceptanceRow, ...]:
        """Return all acceptances, oldest first."""
        rows = self._rows("SELECT kind, reason, actor, former, at FROM acceptances ORDER BY id")
        return tuple(AcceptanceRow(*row) for row in rows)


class RunTally(NamedTuple):
    """Runs of one pipeline that ended alike."""

    pipeline: str
    status: str
    verdict: str
    """Empty if the run reached none."""
    n_runs: int


class Tallies(LedgerBase):
    def tallies(self) -> tuple[RunTally, ...]:
        """Runs by pipeline, status and verdict."""
        rows = self._rows(
            "SELECT pipeline, status, coalesce(verdict, '') AS verdict, count(*) AS n_runs FROM runs"
            " GROUP BY pipeline, status, coalesce(verdict, '') ORDER BY pipeline, status, 3"
        )
        return tuple(RunTally(*row) for row in rows)

    def last_verdicts(self) -> dict[str, str]:
        """Pipeline -> when its newest run with a verdict other than ERROR ended; runs with `--as-of` do not count."""
        rows = self._rows(
            "SELECT pipeline, max(ended_at) AS at FROM runs WHERE status = 'DONE'"
            " AND verdict IN ('PROMOTE', 'UNCOMPARED', 'HOLD', 'BLOCK') AND as_of IS NULL"
            " GROUP BY pipeline ORDER BY pipeline"
        )
        return {row["pipeline"]: row["at"] for row in rows}


class Ledger(Runs, Ticks, Tallies, Approvals, Erasures, Acceptances):
    """`Ledger(home)`, or `Ledger(home, "postgresql://...")`; creating the object and reading create nothing on disk."""
