"""Upgrade ledgers of earlier versions in place: in one transaction, all of it or nothing.

Called by `tunegate ops migrate` (`flows/ledger/migrate.py`), after a backup. The statements are frozen: a
later version of the tables gets its own function here.
"""

import re
import sqlite3
from collections.abc import Callable, Mapping

import orjson

from flows.ledger.database import Database
from flows.ledger.journal import close_books
from flows.ledger.sqlite import transaction, triggers
from flows.ledger.tables import BOOKS, TABLES

TO_2 = """
CREATE TABLE champion_events_2 (
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
INSERT INTO champion_events_2 (seq, name, from_version, to_version, action, reason, actor, run_id, verdict_digest, at,
    prev_hash, hash)
SELECT seq, name, from_version, to_version, action, reason, actor, run_id, verdict_digest, at, prev_hash, hash
FROM champion_events ORDER BY seq;
DROP TABLE champion_events;
ALTER TABLE champion_events_2 RENAME TO champion_events;
CREATE TRIGGER champion_events_stay BEFORE UPDATE ON champion_events
    BEGIN SELECT RAISE(ABORT, 'champion_events is append-only'); END;
CREATE TRIGGER champion_events_remain BEFORE DELETE ON champion_events
    BEGIN SELECT RAISE(ABORT, 'champion_events is append-only'); END;
"""
"""Promotions by force, approvals, cooldowns. Old events keep their hashes: an empty new field is not hashed."""


def upgrade_to_2(db: sqlite3.Connection) -> None:
    """Upgrade tables of version 1 to version 2; the caller holds the lock."""
    db.execute("PRAGMA foreign_keys = OFF")  # `champions` references the table that is recreated
    db.execute("PRAGMA legacy_alter_table = ON")  # and must keep referencing its name
    try:
        db.executescript(f"BEGIN IMMEDIATE; {TO_2} PRAGMA user_version = 2; COMMIT;")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def to_3(db: Database, watch: Callable[[], None]) -> None:
    """Upgrade tables of version 2 to version 3, inside the caller's transaction: add a journal, one line per row.

    `watch` creates the triggers of the caller's database.
    """
    db.execute("ALTER TABLE champion_events ADD COLUMN evidence TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE champion_events ADD COLUMN note TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE candidates ADD COLUMN evidence TEXT NOT NULL DEFAULT ''")
    for statement in filter(str.strip, TABLES.split(";")):
        db.execute(re.sub(r"CREATE (TABLE|INDEX)", r"CREATE \1 IF NOT EXISTS", statement))
    watch()
    for book, columns in BOOKS.items():
        for row in db.execute(f"SELECT {', '.join(columns)} FROM {book}").fetchall():
            key = orjson.dumps(list(row)).decode()
            db.execute("INSERT INTO touched (book, row_key) VALUES (?, ?)", (book, key))
    close_books(db)


def upgrade_to_3(db: sqlite3.Connection) -> None:
    """Do the same for a file; the caller holds the lock."""

    def watch() -> None:
        for name in OLD_TRIGGERS:
            db.execute(f"DROP TRIGGER IF EXISTS {name}")
        for statement in triggers().splitlines():
            db.execute(statement)

    db.row_factory = sqlite3.Row
    with transaction(db):
        to_3(db, watch)
        db.execute("PRAGMA user_version = 3")


VERDICTS_4 = "'PROMOTE', 'UNCOMPARED', 'HOLD', 'BLOCK', 'ERROR'"
"""The verdicts that version 4 allows in the tables `runs` and `candidates`."""
_WITH_VERDICT = ("runs", "candidates")


def to_4(db: Database) -> None:
    """Upgrade tables of version 3 to version 4 in Postgres, inside the caller's transaction: one more verdict."""
    for table in _WITH_VERDICT:
        db.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_verdict_check")
        db.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_verdict_check CHECK (verdict IN ({VERDICTS_4}))")


def upgrade_to_4(db: sqlite3.Connection) -> None:
    """Do the same for a file: SQLite changes no constraint, so both tables are made again. No row changes."""
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA foreign_keys = OFF")  # `steps` references a table that is recreated
    db.execute("PRAGMA legacy_alter_table = ON")  # and must keep referencing its name
    with transaction(db):
        for table in _WITH_VERDICT:
            query = "SELECT type, sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL"
            parts = [(row["type"], row["sql"]) for row in db.execute(query, (table,)).fetchall()]
            made = next(sql for kind, sql in parts if kind == "table")
            made = re.sub(rf'CREATE TABLE "?{table}"?', f"CREATE TABLE {table}_4", made)
            db.execute(made.replace("verdict IN ('PROMOTE', 'HOLD', 'BLOCK', 'ERROR')", f"verdict IN ({VERDICTS_4})"))
            db.execute(f"INSERT INTO {table}_4 SELECT * FROM {table}")
            db.execute(f"DROP TABLE {table}")
            db.execute(f"ALTER TABLE {table}_4 RENAME TO {table}")
            for kind, sql in parts:
                if kind in ("index", "trigger"):
                    db.execute(sql)
        db.execute("PRAGMA user_version = 4")


OLD_TRIGGERS = ("champion_events_stay", "champion_events_remain", "forgettings_no_update", "forgettings_no_delete")

UPGRADES: Mapping[int, Callable[[sqlite3.Connection], None]] = {1: upgrade_to_2, 2: upgrade_to_3, 3: upgrade_to_4}
"""Version -> function that upgrades it to the next."""
