"""The ledger as one SQLite file: its transactions, and its errors in plain words.

WAL with synchronous=FULL: what was committed survives a power cut. Each call opens its own connection, so that any
thread and any process may use it; writers take turns (BEGIN IMMEDIATE), a reader sees one moment. Readers create
nothing. It knows nothing of what the rows mean; `flows/ledger/base.py` chooses between it and Postgres.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from flows.ledger.database import Database, Holds
from flows.ledger.journal import close_books, open_books
from flows.ledger.tables import APPEND_ONLY, BOOKS, TABLES, VERSION
from flows.workspace.disk import named_disk_errors, private_folder
from flows.workspace.lock import hold
from schemas.errors import LockedError, StorageError

BUSY_TIMEOUT_S = 30


class LedgerFile:
    """A file that need not exist. Making the object touches nothing on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def place(self) -> str:
        """What errors call it."""
        return str(self.path)

    def exists(self) -> bool:
        """Is there a file? It may still be empty."""
        return self.path.exists()

    @contextmanager
    def read(self) -> Iterator[Database]:
        """What is there at this moment; an empty ledger in memory when there is none yet."""
        with self._named_errors(), named_disk_errors(self.path.parent):
            if self.path.exists():
                with closing(self.connect()) as db:
                    if current(self.version(db), self.place):
                        db.execute("BEGIN")
                        yield db
                        return
                self._refuse_emptied()
            with empty_ledger() as db:
                yield db

    @contextmanager
    def write(self) -> Iterator[Database]:
        """One transaction: all of the block or nothing."""
        with self._named_errors(), named_disk_errors(self.path.parent):
            self._create_once()
            with closing(self.connect()) as db:
                db.execute("BEGIN IMMEDIATE")
                try:
                    open_books(db)
                    yield db
                    close_books(db)
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:  # SQLite itself rolls back when the disk is full
                        db.execute("ROLLBACK")
                    raise

    @contextmanager
    def alone(self, _what: str, *, wait_s: float, holder: str) -> Iterator[Holds]:
        """Nothing to do: a file is used from one machine, whose locks are enough."""
        yield lambda: True

    def holder(self, _what: str) -> str | None:
        """As `alone`: nobody holds more than the machine's locks."""
        return None

    def count_on(self, db: Database) -> None:
        """After rows came in with their numbers: SQLite counts on from the highest by itself."""

    def connect(self) -> sqlite3.Connection:
        """A connection that commits each statement unless it is told to begin."""
        db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        return db

    def version(self, db: sqlite3.Connection) -> int:
        """The version of the file's tables, 0 when it has none."""
        return int(db.execute("PRAGMA user_version").fetchone()[0])

    def _create_once(self) -> None:
        if self.path.exists():
            with closing(self.connect()) as db:
                if current(self.version(db), self.place):
                    return
            self._refuse_emptied()
        # Two first runs must not both change the journal mode: SQLite does not wait for that.
        with hold(private_folder(self.path.parent) / "ledger.sqlite.creating"):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(self.connect()) as db:
                if not self.version(db):
                    db.execute("PRAGMA journal_mode = WAL")
                    made = f"{TABLES} {triggers()} PRAGMA user_version = {VERSION}"
                    db.executescript(f"BEGIN IMMEDIATE; {made}; COMMIT;")

    def _refuse_emptied(self) -> None:
        """A file without tables is what a kill at its creation leaves; behind the first result it is a loss.

        Raises:
            StorageError: TG0581, there are results, so the ledger had rows.
        """
        if any((self.path.parent / "store").glob("*/*")):
            raise StorageError(
                "the ledger is empty, and the store beside it is not",
                code="TG0581",
                where=self.place,
                hint="put it back from a backup; to begin anew without history and champion, remove the file and say"
                " so: `tunegate run PIPELINE --new-ledger --reason TEXT`",
            )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise busy(self.place) from error
        except sqlite3.DatabaseError as error:
            if "not a database" not in str(error) and "malformed" not in str(error):
                raise
            raise StorageError(
                f"the ledger cannot be read: {error}",
                code="TG0531",
                where=self.place,
                hint="put it back from a backup; the stored results are untouched",
            ) from error


def triggers() -> str:
    """What lets SQLite note each row that changes, and refuse to change what is append-only."""
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
    """A ledger without a row, in memory: what is read where there is none yet."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.row_factory = sqlite3.Row
        db.executescript(TABLES)
        yield db


def current(version: int, place: str) -> bool:
    """Whether there are tables, and they are this program's; False when there are none.

    Raises:
        StorageError: TG0530, they were written by a newer program, TG0530, by an older one.
    """
    if version > VERSION:
        raise StorageError(
            f"the ledger has version {version}, this program reads version {VERSION}",
            code="TG0530",
            where=place,
            hint="run the newer tunegate that wrote it, or set TUNEGATE_HOME to another folder; nothing was changed",
        )
    if 0 < version < VERSION:
        raise StorageError(
            f"the ledger has version {version} of an older tunegate, this program reads version {VERSION}",
            code="TG0530",
            where=place,
            hint="`tunegate ops migrate` makes a backup and brings it up to date; older programs cannot read it then",
        )
    return version == VERSION


def busy(place: str) -> LockedError:
    """The error of a writer who has waited for too long."""
    return LockedError(
        f"another process has been writing to the ledger for {BUSY_TIMEOUT_S} s",
        code="TG0520",
        where=place,
        hint="try again; `tunegate status` names the runs in progress",
    )
