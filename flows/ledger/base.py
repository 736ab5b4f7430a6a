"""Where the ledger is kept: a SQLite file in the home folder, or Postgres when several hosts share it.

The books (`runs.py`, `ticks.py`, `champions.py`) stand on this class and see one kind of database. Locks of a pipeline
are the machine's `flock`, and with Postgres a lock there as well: both end with the process that holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from flows.ledger.database import Check, Database, Holds
from flows.ledger.journal import FIRST_HASH, check_books, identity, last_line
from flows.ledger.postgres import LedgerPostgres
from flows.ledger.sqlite import LedgerFile
from flows.ledger.witness import BEGIN_ANEW, Seen, Witness
from flows.workspace.disk import private_folder
from flows.workspace.lock import GRACE_S, Holder, hold, is_locked, pipeline_lock, refusal
from schemas.errors import ServiceError, StorageError

TELLER = "mlflow.teller"
STATE = ("store", "runs", "warehouse", "mlflow", "feedback")
"""What is in a home folder in which something has run; a folder without any of these is new."""


class LedgerBase:
    """`LedgerBase(home)` or `LedgerBase(home, "postgresql://...")`; making it touches nothing.

    With the user's `state` folder each change is checked against the witness that is kept there, and witnessed.
    """

    def __init__(self, root: Path, url: str | None = None, *, state: Path | None = None) -> None:
        self.root = root.absolute()
        self.path = self.root / "ledger.sqlite"
        self.kept: LedgerFile | LedgerPostgres = LedgerPostgres(url) if url else LedgerFile(self.path)
        self.witness = None if state is None else Witness(state, self.root)
        self._is_there = False

    def exists(self) -> bool:
        """Has anything ever been written? Creates nothing."""
        return self.kept.exists()

    def read(self) -> AbstractContextManager[Database]:
        """A connection to look at, one moment for the whole block."""
        return self.kept.read()

    @contextmanager
    def write(self) -> Iterator[Database]:
        """One transaction: all of the block or nothing; writers take turns.

        Raises:
            StorageError: TG0581, the ledger is not the one that was here before; TG0580, it was altered.
        """
        if self.witness is None:
            with self.kept.write() as db:
                yield db
            return
        removed = self._refuse_absent(self.witness) or self.witness.unfinished()
        with self.kept.write() as db:
            if removed is not None and identity(db) is None:
                self.witness.begin_anew(db, removed)
            else:
                self.witness.check(db)
            yield db
        self._is_there = True
        self.witness.move(self._last_line)

    def check(self) -> None:
        """Is every row what was written, and is it the ledger that was here before?

        Raises:
            StorageError: TG0581, TG0580 or TG0581, it is not.
        """
        if self.witness is not None:
            self._refuse_absent(self.witness)
        with self.read() as db:
            check_books(db)
            if self.witness is not None and self.exists():
                self.witness.check(db)

    def last_hash(self) -> str:
        """Hash of the journal's last line: it covers all rows before."""
        with self.read() as db:
            return last_line(db)[1]

    def knows_hash(self, line: str) -> bool:
        """Is this the hash of a line of the journal, or of its empty beginning?"""
        with self.read() as db:
            return (
                line == FIRST_HASH or db.execute("SELECT 1 FROM journal WHERE hash = ?", (line,)).fetchone() is not None
            )

    def _refuse_absent(self, witness: Witness) -> Seen | None:
        """A ledger is made where there is nothing else. Where the whole home folder was removed, too: what its witness
        saw last is returned then, to be kept in the new ledger."""
        if self._is_there or self.exists():
            return None
        if not any((self.root / name).exists() for name in STATE):
            return witness.seen()
        witness.refuse_absent(self.kept.place)
        if any((self.root / "store").glob("*/*")):
            raise StorageError("there are results and no ledger", code="TG0581", where=self.kept.place, hint=BEGIN_ANEW)
        return None

    def _last_line(self) -> tuple[str | None, int, str]:
        with self.read() as db:
            return (identity(db), *last_line(db))

    @contextmanager
    def pipeline_lock(self, name: str, *, wait_s: float, run_id: str) -> Iterator[None]:
        """Hold the pipeline while the block runs, on every host that uses this ledger.

        Raises:
            LockedError: TG0520, another run holds it for longer than `wait_s` seconds.
        """
        with self.kept.alone(name, wait_s=max(wait_s, GRACE_S), holder=run_id) as holds:
            if not holds():
                raise refusal(name, self.holder_of(name) or _holder("unknown"))
            with pipeline_lock(self.root, name, wait_s=wait_s, run_id=run_id):
                yield

    def holder_of(self, name: str) -> Holder | None:
        """Who holds the pipeline at this moment, here or on another host; None when nobody does."""
        here, run_id = is_locked(self.root, name), self.kept.holder(name)
        # Postgres may have been restarted under a run of this host, which goes on.
        return here if run_id is None or (here is not None and here.run == run_id) else _holder(run_id)

    @contextmanager
    def teller(self, *, wait_s: float) -> Iterator[Check]:
        """Wait for the turn to tell MLflow, which one process of all hosts has; yields a check for before each telling.

        It raises ServiceError (TG0710) when the turn is another's: a host that was cut off has lost it meanwhile.
        """
        with hold(private_folder(self.root / "locks") / TELLER, wait_s=wait_s) as here:
            if not here:
                yield partial(_check_turn, lambda: False)
                return
            with self.kept.alone(TELLER, wait_s=wait_s, holder="teller") as holds:
                yield partial(_check_turn, holds)


def _check_turn(holds: Holds) -> None:
    if not holds():
        raise ServiceError("another process is telling MLflow", code="TG0710", hint="`tunegate ops reconcile` later")


def _holder(run_id: str) -> Holder:
    """Somebody on another host, of whom the run is all that is known."""
    return Holder(pid=0, since="unknown", host="another host", run=run_id)
