"""Where the ledger is kept: a SQLite file in the home folder, or Postgres when several hosts share it.

The books (`runs.py`, `ticks.py`, `champions.py`) extend this class and see one kind of database. A pipeline's lock is
the machine's `flock`, and with Postgres a lock there as well: both end with the process that holds them.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from flows.ledger.database import Check, Database, Holds, Row
from flows.ledger.journal import FIRST_HASH, check_books, identity, last_line
from flows.ledger.postgres import LedgerPostgres
from flows.ledger.sqlite import LedgerFile
from flows.ledger.witness import NEW_LEDGER_HINT, Seen, Witness
from flows.workspace.disk import private_folder
from flows.workspace.lock import GRACE_S, Holder, hold, is_locked, lock_file, pipeline_lock, refusal
from schemas.errors import ServiceError, StorageError

MLFLOW_LOCK = "mlflow.teller"
"""Name of the lock of the process that synchronises MLflow; other versions use the same."""
STATE = ("store", "runs", "warehouse", "mlflow", "feedback")
"""Folders of a home in which something has run; a home without any of these is new."""


class LedgerBase:
    """`LedgerBase(home)` or `LedgerBase(home, "postgresql://...")`; creating the object touches nothing.

    With the user's `state` folder each change is checked against the witness that is kept there, and noted in it.
    """

    def __init__(self, root: Path, url: str | None = None, *, state: Path | None = None) -> None:
        self.root = root.absolute()
        self.path = self.root / "ledger.sqlite"
        self.kept: LedgerFile | LedgerPostgres = LedgerPostgres(url) if url else LedgerFile(self.path)
        self.witness = None if state is None else Witness(state, self.root)
        self._exists = False

    def exists(self) -> bool:
        """Return whether anything has been written. Creates nothing."""
        return self.kept.exists()

    def read(self) -> AbstractContextManager[Database]:
        """Open a connection for reading; the whole block sees one moment."""
        return self.kept.read()

    def _rows(self, sql: str, *values: object) -> list[Row]:
        with self.read() as db:
            return db.execute(sql, values).fetchall()

    def _first(self, sql: str, *values: object) -> Row | None:
        with self.read() as db:
            row: Row | None = db.execute(sql, values).fetchone()
        return row

    @contextmanager
    def write(self) -> Iterator[Database]:
        """Run the block in one transaction, all of it or nothing; writers take turns.

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
                self.witness.start_over(db, removed)
            else:
                self.witness.check(db)
            yield db
        self._exists = True
        self.witness.move(self._last_line)

    def check(self) -> None:
        """Check that every row is what was written, and that it is the ledger that was here before.

        Raises:
            StorageError: TG0580, a row is not; TG0581, it is another ledger.
        """
        if self.witness is not None:
            self._refuse_absent(self.witness)
        with self.read() as db:
            check_books(db)
            if self.witness is not None and self.exists():
                self.witness.check(db)

    def last_hash(self) -> str:
        """Return the hash of the journal's last line: it covers all rows before."""
        with self.read() as db:
            return last_line(db)[1]

    def knows_hash(self, line: str) -> bool:
        """Return whether this is the hash of a line of the journal, or of its empty beginning."""
        return line == FIRST_HASH or self._first("SELECT 1 FROM journal WHERE hash = ?", line) is not None

    def _refuse_absent(self, witness: Witness) -> Seen | None:
        """Refuse to create a ledger where there was one, unless the whole home folder was removed.

        Then what its witness saw last is returned, to be kept in the new ledger.
        """
        if self._exists or self.exists():
            return None
        if not any((self.root / name).exists() for name in STATE):
            return witness.seen()
        witness.refuse_absent(self.kept.place)
        if any((self.root / "store").glob("*/*")):
            raise StorageError(
                "there are results and no ledger", code="TG0581", where=self.kept.place, hint=NEW_LEDGER_HINT
            )
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
        with self.kept.exclusive(name, wait_s=max(wait_s, GRACE_S), holder=run_id) as holds:
            if not holds():
                raise refusal(name, self.holder_of(name) or _holder("unknown"))
            with pipeline_lock(self.root, name, wait_s=wait_s, run_id=run_id):
                yield

    @contextmanager
    def resource_lock(self, name: str, *, wait_s: float, run_id: str) -> Iterator[None]:
        """Hold a resource that pipelines share while the block runs, until its holder ends or dies.

        Args:
            name: A name, held against all runs of this ledger; or the absolute path of a lock file, held against all
                runs that name it.

        Raises:
            ConfigError: TG0110, the lock file cannot be used.
            LockedError: TG0520, another run holds it for longer than `wait_s` seconds.
        """
        if name.startswith("/"):
            with lock_file(Path(name), wait_s=wait_s, run_id=run_id):
                yield
        else:
            with self.pipeline_lock(f"resource.{name}", wait_s=wait_s, run_id=run_id):  # no pipeline's name has a dot
                yield

    def holder_of(self, name: str) -> Holder | None:
        """Return who holds the pipeline at this moment, here or on another host; None when no one does."""
        here, run_id = is_locked(self.root, name), self.kept.holder(name)
        # Postgres may have been restarted during a run of this host, which continues.
        return here if run_id is None or (here is not None and here.run == run_id) else _holder(run_id)

    @contextmanager
    def mlflow_lock(self, *, wait_s: float) -> Iterator[Check]:
        """Hold the lock that lets one process of all hosts update MLflow; yields a check to run before each update.

        The check raises ServiceError (TG0710) if another process has the lock: a host that was cut off has lost it.
        """
        with hold(private_folder(self.root / "locks") / MLFLOW_LOCK, wait_s=wait_s) as here:
            if not here:
                yield partial(_check_lock, lambda: False)
                return
            with self.kept.exclusive(MLFLOW_LOCK, wait_s=wait_s, holder="teller") as holds:
                yield partial(_check_lock, holds)


def _check_lock(holds: Holds) -> None:
    if not holds():
        raise ServiceError("another process is updating MLflow", code="TG0710", hint="`tunegate ops reconcile` later")


def _holder(run_id: str) -> Holder:
    """A holder on another host, of which only the run is known."""
    return Holder(pid=0, since="unknown", host="another host", run=run_id)
