"""The ledger as one SQLite file: its transactions, and its errors in plain words.

WAL with synchronous=FULL: committed rows survive a power cut. Each call opens its own connection, so that any thread
and any process may use it; writers take turns (BEGIN IMMEDIATE), a reader sees one moment. Readers create nothing, and
need no permission to write in the folder. It does not know what the rows mean; `flows/ledger/base.py` chooses between
it and Postgres.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path

from flows.ledger.database import Database, Holds
from flows.ledger.journal import altered, close_books, open_books
from flows.ledger.tables import APPEND_ONLY, BOOKS, TABLES, VERSION
from flows.workspace.disk import is_read_only, named_disk_errors, private_folder
from flows.workspace.lock import hold
from schemas.errors import LockedError, StorageError

BUSY_TIMEOUT_S = 30

log = logging.getLogger("tunegate.ledger")


class _MarkedConnection(sqlite3.Connection):
    """A connection that knows the mark of the state that it sees."""

    mark = ""


class LedgerFile:
    """A file that need not exist. Creating the object touches nothing on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._wal = path.with_name(f"{path.name}-wal")

    @property
    def is_read_only(self) -> bool:
        """Whether this user may not write in its folder."""
        return is_read_only(self.path.parent)

    @property
    def place(self) -> str:
        """Its name in error messages."""
        return str(self.path)

    def exists(self) -> bool:
        """Return whether there is a file. It may still be empty."""
        return self.path.exists()

    @contextmanager
    def read(self) -> Iterator[Database]:
        """Open the ledger as of this moment; an empty one in memory when there is none yet."""
        with self._named_errors(), named_disk_errors(self.path.parent):
            if self.path.exists():
                before = self._state()
                with closing(self._connect_to_read()) as db:
                    db.execute("BEGIN")
                    if check_version(
                        self.version(db), self.place
                    ):  # the first statement: from here on it sees one moment
                        db.mark = before if self._state() == before else ""
                        yield db
                        return
                self._refuse_emptied()
            with empty_ledger() as db:
                yield db

    @contextmanager
    def write(self) -> Iterator[Database]:
        """Run the block in one transaction, all of it or nothing."""
        with self._named_errors(), named_disk_errors(self.path.parent), closing(self._connect_to_write()) as db:
            with transaction(db):
                db.mark = self._state()
                open_books(db)
                yield db
                close_books(db)
                others = _commits_of_others(db)
            db.mark = self._settled(db, others)

    @contextmanager
    def exclusive(self, _what: str, *, wait_s: float, holder: str) -> Iterator[Holds]:
        """Do nothing: only one machine uses a file, and its own locks are enough."""
        yield lambda: True

    def holder(self, _what: str) -> str | None:
        """Return None, see `exclusive`: there are only the machine's locks."""
        return None

    def mark(self, db: Database) -> str:
        """Return the mark of the state that the connection sees, or has committed; empty if it is not certain.

        It is a text that changes with every write to the file, by whatever program.
        """
        return db.mark if isinstance(db, _MarkedConnection) else ""

    def has_moved(self, db: Database) -> bool:
        """Return whether the file has changed since the connection was opened."""
        return isinstance(db, _MarkedConnection) and self._state() != db.mark

    def _settled(self, db: _MarkedConnection, others: int) -> str:
        """Move the commit from the WAL into the file, as closing would; return the mark of exactly this commit.

        It is empty if another program has committed since: its changes were not checked.
        """
        with suppress(sqlite3.Error):  # it is committed, whatever happens here
            db.execute("PRAGMA busy_timeout = 0")  # while there is a reader, the WAL stays
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            state = self._state()
            if _commits_of_others(db) == others:
                return state
        return ""

    def _state(self) -> str:
        """Return inode, size and times of the file and its WAL; empty if there is no file.

        A program cannot set the time of a file's last change. That time has the resolution of the kernel's clock tick
        (4 to 10 ms): a foreign write of the same size within the tick of our own is seen only by a check of all rows.
        """
        seen = []
        for path in (self.path, self._wal):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if status.st_size:  # a reader leaves an empty WAL while it is connected
                seen.append(f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}")
        return " ".join(seen)

    def continue_numbering(self, db: Database) -> None:
        """Do nothing: SQLite itself numbers the next row after the highest."""

    def connect(self, *, mode: str = "mode=rw") -> _MarkedConnection:
        """Open a connection that commits each statement outside an explicit transaction."""
        uri = f"{self.path.absolute().as_uri()}?{mode}"
        db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, factory=_MarkedConnection)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
        except BaseException:  # the file may be damaged
            db.close()
            raise
        return db

    def version(self, db: sqlite3.Connection) -> int:
        """Return the version of the file's tables; 0 when it has none."""
        return int(db.execute("PRAGMA user_version").fetchone()[0])

    def _connect_to_read(self) -> _MarkedConnection:
        if not self.is_read_only:
            return self.connect()
        _note_read_only(self.path.parent)
        # A reader of a WAL database creates two files next to it, unless they are there or SQLite is to expect no WAL.
        if not self._wal.exists() or not self._wal.stat().st_size:
            return self.connect(mode="immutable=1")
        if not self.path.with_name(f"{self.path.name}-shm").exists():
            raise StorageError(
                "its newest entries are in ledger.sqlite-wal, which SQLite reads only where it may write",
                code="TG0554",
                where=self.place,
                hint="copy the home folder to where you may write, and set TUNEGATE_HOME to the copy",
            )
        return self.connect(mode="mode=ro")

    def _connect_to_write(self) -> _MarkedConnection:
        """Open the file, which is made first if it does not exist or has no tables.

        A second connection just to look would cost a millisecond, in which SQLite reads the tables and triggers.
        """
        if self.path.exists():
            db = self.connect()
            try:
                if check_version(self.version(db), self.place):
                    return db
            except BaseException:
                db.close()
                raise
            db.close()
            self._refuse_emptied()
        self._create()
        return self.connect()

    def _create(self) -> None:
        # Two first runs must not both change the journal mode: SQLite does not wait there.
        with hold(private_folder(self.path.parent) / "ledger.sqlite.creating"):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(self.connect()) as db:
                if not self.version(db):
                    db.execute("PRAGMA journal_mode = WAL")
                    made = f"{TABLES} {triggers()} PRAGMA user_version = {VERSION}"
                    db.executescript(f"BEGIN IMMEDIATE; {made}; COMMIT;")

    def _refuse_emptied(self) -> None:
        """Refuse a file without tables once there are results: then it is not a leftover of a kill, but a loss.

        Raises:
            StorageError: TG0581, there are results, so the ledger had rows.
        """
        if any((self.path.parent / "store").glob("*/*")):
            raise StorageError(
                "the ledger is empty, and the store next to it is not",
                code="TG0581",
                where=self.place,
                hint="restore it from a backup; to start over without history and champion, remove the file and run"
                " `tunegate run PIPELINE --new-ledger --reason TEXT`",
            )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise busy(self.place) from error
            if "decode" in str(error):
                raise altered("a text is not UTF-8") from None  # SQLite's message quotes it
            if str(error).startswith("no such"):
                raise altered(f"its tables are not those that tunegate made ({error})") from error
            raise
        except sqlite3.DatabaseError as error:
            if "not a database" not in str(error) and "malformed" not in str(error):
                raise
            raise StorageError(
                f"the ledger cannot be read: {error}",
                code="TG0531",
                where=self.place,
                hint="restore it from a backup; the stored results are intact",
            ) from error


@cache
def _note_read_only(folder: Path) -> None:
    """Write the note once per process: a command opens the ledger many times."""
    log.warning("the ledger is opened for reading only: this user may not write in %s", folder)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Run the block in one transaction, all of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite itself rolls back when the disk is full
            db.execute("ROLLBACK")
        raise


def _commits_of_others(db: sqlite3.Connection) -> int:
    """Return a number that changes when another connection has committed."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])


def triggers() -> str:
    """Return the triggers that note each row that changes, and refuse to change what is append-only."""
    made = []
    for book, columns in BOOKS.items():
        old, new = (f"('{book}', json_array({', '.join(f'{row}.{c}' for c in columns)}))" for row in ("OLD", "NEW"))
        for change, rows in (("INSERT", new), ("UPDATE", f"{old}, {new}"), ("DELETE", old)):
            made.append(
                f"CREATE TRIGGER {book}_touched_by_{change.lower()} AFTER {change} ON {book}"
                f" BEGIN INSERT INTO touched (book, row_key) VALUES {rows}; END;"
            )
    made += [
        f"CREATE TRIGGER {name}_no_{change.lower()} BEFORE {change} ON {name}"
        f" BEGIN SELECT RAISE(ABORT, '{name} is append-only'); END;"
        for name in APPEND_ONLY
        for change in ("UPDATE", "DELETE")
    ]
    return "\n".join(made)


@contextmanager
def empty_ledger() -> Iterator[Database]:
    """Open a ledger without rows, in memory: for readers where there is none yet."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.row_factory = sqlite3.Row
        db.executescript(TABLES)
        yield db


def check_version(version: int, place: str) -> bool:
    """Return whether there are tables, of this program's version; False when there are none.

    Raises:
        StorageError: TG0530, another tunegate wrote them.
    """
    if version not in (0, VERSION):
        raise StorageError(
            f"the ledger has version {version}, this tunegate reads version {VERSION}",
            code="TG0530",
            where=place,
            hint="use the tunegate that wrote it, or set TUNEGATE_HOME to another folder; nothing was changed",
        )
    return version == VERSION


def busy(place: str) -> LockedError:
    """Make the error for a writer that has waited for too long."""
    return LockedError(
        f"another process has been writing to the ledger for {BUSY_TIMEOUT_S} s",
        code="TG0520",
        where=place,
        hint="try again; `tunegate status` names the runs in progress",
    )
