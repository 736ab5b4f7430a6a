"""The ledger in a file: private and durable; a file that is not a ledger and a full disk are reported."""

import hashlib
import sqlite3

import pytest

from flows.ledger import sqlite as ledger_file
from flows.ledger.tables import TABLES, VERSION
from schemas.errors import LockedError, StorageError
from tests.flows.ledger.test_witness import begin


def test_the_file_is_private_durable_and_versioned(in_file):
    begin(in_file, "a")
    assert in_file.path.stat().st_mode & 0o777 == 0o600
    assert in_file.root.stat().st_mode & 0o777 == 0o700
    with in_file.read() as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert db.execute("PRAGMA user_version").fetchone()[0] == VERSION


def test_an_empty_file_left_by_a_killed_creation_counts_as_no_ledger(in_file):
    in_file.root.mkdir()
    in_file.path.touch()
    assert in_file.runs() == ()
    begin(in_file, "a")
    assert len(in_file.runs()) == 1


def test_a_file_that_is_not_a_ledger_is_reported(in_file):
    in_file.root.mkdir()
    in_file.path.write_bytes(b"this is not SQLite " * 100)
    with pytest.raises(StorageError, match="TG0531"):
        in_file.runs()


def test_a_full_disk_is_reported_and_earlier_writes_are_kept(in_file):
    begin(in_file, "a")

    def fill():
        with in_file.write() as db:
            pages = db.execute("PRAGMA page_count").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {pages}")
            db.execute("UPDATE runs SET reason = ?", ("x" * 1_000_000,))

    with pytest.raises(StorageError, match=r"TG0501.*bytes are free"):
        fill()
    assert in_file.run("a").reason == ""


def test_a_ledger_that_another_process_writes_to_is_locked(in_file, monkeypatch):
    monkeypatch.setattr(ledger_file, "BUSY_TIMEOUT_S", 0)  # users wait for thirty seconds
    begin(in_file, "a")
    other = sqlite3.connect(in_file.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LockedError, match="TG0520"):
        begin(in_file, "b")
    other.close()


def test_changed_tables_have_another_version() -> None:
    """With the same version, a ledger of the tables before would count as altered, or end in an internal error."""
    digest = hashlib.sha256(" ".join(TABLES.split()).encode()).hexdigest()
    assert (VERSION, digest[:16]) == (3, "8dcaa6500dec0d11")
