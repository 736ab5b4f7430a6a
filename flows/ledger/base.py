"""Where the ledger is kept: a SQLite file in the home folder, or Postgres when several hosts share it.

The books (`runs.py`, `ticks.py`, `champions.py`) extend this class and see one kind of database. They open it by `read`
and `write`, which refuse a ledger that was altered, removed, exchanged or restored to an earlier state. A pipeline's
lock is the machine's `flock`, and with Postgres a lock there as well: both end with the process that holds them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock

from flows.ledger.database import Check, Database, Holds, Row
from flows.ledger.journal import FIRST_HASH, check_books, identity, last_line
from flows.ledger.postgres import LedgerPostgres
from flows.ledger.sqlite import LedgerFile
from flows.ledger.witness import NEW_LEDGER_HINT, Witness, WitnessState
from flows.workspace.disk import private_folder
from flows.workspace.lock import GRACE_S, Holder, hold, is_locked, lock_file, pipeline_lock, refusal
from schemas.errors import ServiceError, StorageError

MLFLOW_LOCK = "mlflow.teller"
"""Name of the lock of the process that synchronises MLflow."""
MOVES = 4
"""So often a ledger that fails its check while it is written is opened again."""
STATE = ("store", "runs", "warehouse", "mlflow", "feedback")
"""Folders of a home in which something has run; a home without any of these is new."""


class LedgerBase:
    """`LedgerBase(home)` or `LedgerBase(home, "postgresql://...")`; creating the object touches nothing.

    With the user's `state` folder it is checked against the witness that is kept there, in which each change is noted.
    """

    def __init__(self, root: Path, url: str | None = None, *, state: Path | None = None) -> None:
        self.root = root.absolute()
        self.path = self.root / "ledger.sqlite"
        self.kept: LedgerFile | LedgerPostgres = LedgerPostgres(url) if url else LedgerFile(self.path)
        self.witness = None if state is None else Witness(state, self.root)
        self._exists = False
        self._checking = Lock()
        self._checked = ""
        """Mark of the state of which every row was checked, see `LedgerFile.mark`."""

    def exists(self) -> bool:
        """Return whether anything has been written. Creates nothing."""
        return self.kept.exists()

    @property
    def is_read_only(self) -> bool:
        """Whether this user may not write to it: every method that does raises TG0554."""
        return self.kept.is_read_only

    @contextmanager
    def read(self) -> Iterator[Database]:
        """Open a connection for reading; the whole block sees one moment.

        Raises:
            StorageError: TG0580, the ledger was altered; TG0581, it is not the one that was here before.
        """
        with self._opened() as db:
            yield db

    @contextmanager
    def _opened(self, *, whole: bool = False) -> Iterator[Database]:
        for is_last in (*[False] * MOVES, True):
            seen = self._seen()  # first: another process may commit at any time, and then move the witness
            with self.kept.read() as db:
                try:
                    self._check(db, seen, whole=whole)
                except Exception:
                    # Where this user may not write, SQLite reads without locks, and half of what another one commits.
                    if is_last or not self.kept.has_moved(db):
                        raise
                    continue
                yield db
                return

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
            StorageError: TG0580, the ledger was altered; TG0581, it is not the one that was here before.
        """
        removed = self._refuse_absent()
        if removed is None and self.witness is not None:
            removed = self.witness.unfinished()
        with self.kept.write() as db:
            if self.witness is not None and removed is not None and identity(db) is None:
                self.witness.start_over(db, removed)
            else:
                self._check(db, self._seen())
            yield db
        self._exists = True
        self._checked = self.kept.mark(db)
        if self.witness is not None:
            self.witness.move(self._last_line, mark=self._checked)

    def check(self) -> None:
        """Check every row, also if nothing has changed since the last time: a disk may have lost something.

        Raises:
            StorageError: TG0580, the ledger was altered; TG0581, it is not the one that was here before.
        """
        with self._opened(whole=True):
            pass

    def _check(self, db: Database, seen: WitnessState | None, *, whole: bool = False) -> None:
        """Check the open ledger: whether it is the one that was seen last, and every row.

        A check of all rows takes 1 s per 80,000 rows, so unless `whole` it is left out for a state that was checked
        before: by this object, or by the process that noted its mark in the witness.
        """
        mark = self.kept.mark(db)
        if mark and mark == self._checked and not whole:
            return
        with self._checking:  # threads that waited find what the first one has checked
            if whole or not mark or mark != self._checked:
                self._check_now(db, seen, mark, whole=whole)

    def _check_now(self, db: Database, seen: WitnessState | None, mark: str, *, whole: bool) -> None:
        if self.witness is not None:
            if identity(db) is None and not self._exists and not self.exists():
                self._refuse_absent()
                return
            self.witness.check(db, seen)
        if whole or not mark or seen is None or mark not in (seen.mark, self._noted()):
            check_books(db)
            if self.witness is not None and mark and not self.kept.has_moved(db):
                self.witness.note_mark(identity(db), mark)
        self._checked = mark

    def _noted(self) -> str:
        """Return the mark that the witness has by now: a process notes it just after its commit."""
        now = self._seen()
        return "" if now is None else now.mark

    def _seen(self) -> WitnessState | None:
        return None if self.witness is None else self.witness.seen()

    def last_hash(self) -> str:
        """Return the hash of the journal's last line: it covers all rows before."""
        with self.read() as db:
            return last_line(db)[1]

    def knows_hash(self, line: str) -> bool:
        """Return whether this is the hash of a line of the journal, or of its empty beginning."""
        return line == FIRST_HASH or self._first("SELECT 1 FROM journal WHERE hash = ?", line) is not None

    def _refuse_absent(self) -> WitnessState | None:
        """Refuse to create a ledger where there was one, unless the whole home folder was removed.

        Then what its witness saw last is returned, to be kept in the new ledger.
        """
        if self.witness is None or self._exists or self.exists():
            return None
        if not any((self.root / name).exists() for name in STATE):
            return self.witness.seen()
        self.witness.refuse_absent(self.kept.place)
        if any((self.root / "store").glob("*/*")):
            raise StorageError(
                "there are results and no ledger", code="TG0581", where=self.kept.place, hint=NEW_LEDGER_HINT
            )
        return None

    def _last_line(self) -> tuple[str | None, int, str]:
        with self.kept.read() as db:
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
