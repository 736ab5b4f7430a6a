"""The SQLite file behind the ledger: its tables, its transactions, and its errors in plain words.

WAL with synchronous=FULL: what was committed survives a power cut. Each call opens its own connection, so that any
thread and any process may use it; writers take turns (BEGIN IMMEDIATE). Readers create nothing. It knows nothing of
what the rows mean; `flows/engine/runs.py` and `champions.py` do.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from flows.engine.disk import named_disk_errors, private_folder
from flows.engine.ledger_upgrade import upgrade_to_2
from flows.engine.lock import hold
from schemas.errors import LockedError, StorageError

VERSION = 2
BUSY_TIMEOUT_S = 30

TABLES = """
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    pipeline TEXT NOT NULL,
    model_name TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('RUNNING', 'DONE', 'FAILED', 'INTERRUPTED', 'SKIPPED')),
    verdict TEXT CHECK (verdict IN ('PROMOTE', 'HOLD', 'BLOCK', 'ERROR')),
    reason TEXT NOT NULL DEFAULT '',
    input_digest TEXT NOT NULL,
    config_json TEXT NOT NULL,
    code TEXT NOT NULL,
    started_at TEXT NOT NULL,
    ended_at TEXT,
    pid INTEGER NOT NULL,
    exit_code INTEGER,
    prefect_run_id TEXT,
    mlflow_run_id TEXT
);
CREATE INDEX runs_by_input ON runs (pipeline, input_digest, seq);
CREATE TABLE steps (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    step TEXT NOT NULL,
    key TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reused', 'done', 'failed')),
    digest TEXT NOT NULL,
    seconds REAL NOT NULL,
    n_in INTEGER,
    n_out INTEGER,
    error TEXT NOT NULL DEFAULT '',
    UNIQUE (run_id, step)
);
CREATE INDEX steps_by_name ON steps (step, state, id);
CREATE TABLE candidates (
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    key TEXT NOT NULL,
    run_id TEXT NOT NULL,
    ref_json TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('PROMOTE', 'HOLD', 'BLOCK', 'ERROR')),
    reason TEXT NOT NULL,
    mlflow_version TEXT,
    recorded_at TEXT NOT NULL,
    PRIMARY KEY (name, version),
    UNIQUE (name, key)
);
CREATE TABLE champion_events (
    seq INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    from_version TEXT,
    to_version TEXT NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('promote', 'force', 'approve', 'rollback', 'wait', 'reject')),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    run_id TEXT NOT NULL,
    verdict_digest TEXT NOT NULL,
    at TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    verdict TEXT NOT NULL DEFAULT '',
    bundle_digest TEXT NOT NULL DEFAULT '',
    until TEXT NOT NULL DEFAULT ''
);
CREATE TRIGGER champion_events_stay BEFORE UPDATE ON champion_events
    BEGIN SELECT RAISE(ABORT, 'champion_events is append-only'); END;
CREATE TRIGGER champion_events_remain BEFORE DELETE ON champion_events
    BEGIN SELECT RAISE(ABORT, 'champion_events is append-only'); END;
CREATE TABLE champions (
    name TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    seq INTEGER NOT NULL REFERENCES champion_events (seq)
);
CREATE TABLE projections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    done_at TEXT
);
"""


class LedgerFile:
    """`ledger.sqlite` below the root. Making the object touches nothing on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.path = self.root / "ledger.sqlite"

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection to look at; an empty ledger in memory when there is none yet."""
        with self._named_errors(), named_disk_errors(self.root):
            if self.path.exists():
                self._upgrade_once()
                with closing(self._connect()) as db:
                    if self._version(db):
                        yield db
                        return
                self._refuse_emptied()
            with closing(sqlite3.connect(":memory:")) as db:
                db.row_factory = sqlite3.Row
                db.executescript(TABLES)
                yield db

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of the block or nothing."""
        with self._named_errors(), named_disk_errors(self.root):
            self._create_once()
            with closing(self._connect()) as db:
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:  # SQLite itself rolls back when the disk is full
                        db.execute("ROLLBACK")
                    raise

    def _upgrade_once(self) -> None:
        """Bring the tables of an older program up to date, in one transaction."""
        with closing(self._connect()) as db:
            if self._version(db) in (0, VERSION):
                return
        with hold(private_folder(self.root) / "ledger.sqlite.creating"), closing(self._connect()) as db:
            if self._version(db) == 1:
                upgrade_to_2(db)

    def _create_once(self) -> None:
        if self.path.exists():
            self._upgrade_once()
            with closing(self._connect()) as db:
                if self._version(db):
                    return
            self._refuse_emptied()
        # Two first runs must not both change the journal mode: SQLite does not wait for that.
        with hold(private_folder(self.root) / "ledger.sqlite.creating"):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(self._connect()) as db:
                if not self._version(db):
                    db.execute("PRAGMA journal_mode = WAL")
                    db.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")

    def _refuse_emptied(self) -> None:
        """A file without tables is what a kill at its creation leaves; behind the first result it is a loss.

        Raises:
            StorageError: TG0558, there are results, so the ledger had rows.
        """
        if any((self.root / "store").glob("*/*")):
            raise StorageError(
                "the ledger is empty, and the store beside it is not",
                code="TG0558",
                where=str(self.path),
                hint="put it back from a backup; to begin anew without history and champion, remove the file",
            )

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        return db

    def _version(self, db: sqlite3.Connection) -> int:
        """The file's version, 0 when it has no tables.

        Raises:
            StorageError: TG0530, it was written by a newer program.
        """
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > VERSION:
            raise StorageError(
                f"the ledger has version {version}, this program reads up to {VERSION}",
                code="TG0530",
                where=str(self.path),
                hint="run the newer tunegate that wrote it, or set TUNEGATE_HOME to another folder",
            )
        return version

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise LockedError(
                f"another process has been writing to the ledger for {BUSY_TIMEOUT_S} s",
                code="TG0532",
                where=str(self.path),
                hint="try again; `tunegate status` names the runs in progress",
            ) from error
        except sqlite3.DatabaseError as error:
            if "not a database" not in str(error) and "malformed" not in str(error):
                raise
            raise StorageError(
                f"the ledger cannot be read: {error}",
                code="TG0531",
                where=str(self.path),
                hint="put it back from a backup; the stored results are untouched",
            ) from error
