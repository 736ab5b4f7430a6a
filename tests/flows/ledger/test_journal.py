"""Writes to the ledger by other programs are found, in every column of every table."""

import sqlite3
from contextlib import closing, contextmanager

import pytest

from flows.ledger.journal import check_books
from flows.ledger.postgres import LedgerPostgres, _Postgres
from flows.ledger.tables import BOOKS
from schemas.errors import StorageError
from schemas.forget import Holding, LearnedVersion, Tombstone
from tests.support.filled_ledger import fill


@pytest.fixture
def full(ledger, kit):
    """A ledger with a row in every table."""
    fill(ledger, kit, (1, 2), evidence={"gates": "g"})
    ledger.record_held_out("digest", ["t1", "t2"])
    ledger.note_rewrite("extract", "key", "old", "new")
    at = "2026-06-01T00:00:00+00:00"
    ledger.add_tombstone(Tombstone(id="1", key_id="k", owners=("o",), reason="r", actor="a", at=at))
    ledger.record_removals("1", "began", [Holding(kind="result", place="store/a/b", fate="removed")])
    ledger.mark_versions("1", [LearnedVersion(name="replies", version="1", run_id="run-1", how="directly", n_rows=1)])
    with ledger.write() as db:
        db.execute(
            "INSERT INTO acceptances (kind, reason, actor, former, at) VALUES ('restored', 'r', 'a', '', '2026-06-01')"
        )
    ledger.check()
    return ledger


@contextmanager
def edited(ledger, statement):
    """The ledger after an edit by a program that first removes triggers and checks; rolled back afterwards."""
    if isinstance(ledger.kept, LedgerPostgres):
        with ledger.kept._connected() as connection:
            db = _Postgres(connection)
            db.execute("SET session_replication_role TO replica")
            checks = "SELECT conrelid::regclass, conname FROM pg_constraint WHERE contype = 'c' AND connamespace = ?"
            for table, name in db.execute(f"{checks}::regnamespace", ("tunegate",)).fetchall():
                db.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
            db.execute(statement)
            yield db
            connection.rollback()
        return
    with closing(ledger.kept.connect()) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute("BEGIN")
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        db.execute(statement)
        yield db
        db.execute("ROLLBACK")


@pytest.mark.parametrize("book", [*BOOKS, "journal"])
def test_an_edit_of_every_column_of_every_table_is_found(full, book):
    with full.read() as db:
        row = dict(db.execute(f"SELECT * FROM {book} LIMIT 1").fetchone())
    key = BOOKS.get(book, ("seq",))[0]
    for column, value in row.items():
        new = "1" if value is None else f"{column} + 1000" if isinstance(value, int | float) else f"{column} || '1'"
        change = f"UPDATE {book} SET {column} = {new} WHERE {key} = (SELECT min({key}) FROM {book})"
        with edited(full, change) as db, pytest.raises(StorageError, match="TG0580"):
            check_books(db)
    full.check()


@pytest.mark.parametrize("book", [*BOOKS, "journal"])
def test_a_removed_row_is_found(full, book):
    key = BOOKS.get(book, ("seq",))[0]
    change = f"DELETE FROM {book} WHERE {key} = (SELECT min({key}) FROM {book})"
    with edited(full, change) as db, pytest.raises(StorageError, match="TG0580"):
        check_books(db)


def test_an_inserted_row_is_found(full):
    change = "INSERT INTO champions (name, version, seq) VALUES ('another', '1', 1)"
    with edited(full, change) as db, pytest.raises(StorageError, match="row another of champions is not what tunegate"):
        check_books(db)


def test_a_change_under_the_triggers_stops_all_further_writes(full):
    change = "UPDATE candidates SET ref_json = '{}' WHERE version = 1"
    if isinstance(full.kept, LedgerPostgres):
        with full.kept._connected() as connection, connection.cursor() as cursor:
            cursor.execute(change)
            connection.commit()
    else:
        with closing(sqlite3.connect(full.path)) as db, db:
            db.execute(change)
    with pytest.raises(StorageError, match=r"TG0580.*row replies, 1 of candidates was changed by another program"):
        full.mark_projected(1)
    with pytest.raises(StorageError, match="TG0580"):
        full.check()


def test_writes_of_tunegate_itself_are_recorded(full):
    full.record_failure("run-1", "train", ValueError())  # replaces the row of the step
    full.mark_projected(1)
    full.check()


def test_a_champion_does_not_move_in_an_altered_ledger(full):
    with full.write() as db:
        db.execute("DELETE FROM steps")
        db.execute("DELETE FROM touched")  # keeps the removal out of the journal
    with pytest.raises(StorageError, match="TG0580"):
        full.rollback("replies", reason="r")
    assert full.champion("replies").version == "2"
