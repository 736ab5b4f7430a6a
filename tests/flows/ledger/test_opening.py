"""Opening a ledger refuses one that was altered, removed or exchanged, and is quick for one that was checked before."""

import shutil
import sqlite3
import threading
import time
from contextlib import closing

import pytest

from flows.ledger import base
from flows.ledger.journal import altered
from flows.ledger.ledger import Ledger
from schemas.errors import StorageError
from tests.flows.ledger.test_witness import begin, remove, reopened
from tests.support.read_only import read_only


@pytest.fixture
def witnessed(tmp_path):
    """A ledger with a run, and its witness outside the home folder."""
    ledger = Ledger(tmp_path / "home", state=tmp_path / "state")
    begin(ledger, "a")
    return ledger


@pytest.fixture
def checks(monkeypatch):
    """Counts the checks of all rows: one entry for each."""
    done, check_books = [], base.check_books

    def counted(db):
        done.append(1)
        check_books(db)

    monkeypatch.setattr(base, "check_books", counted)
    return done


def edit(path, *statements):
    with closing(sqlite3.connect(path)) as db, db:
        for statement in (*statements, "DELETE FROM touched"):
            db.execute(statement)


def test_rows_are_checked_again_only_after_another_program_wrote(witnessed, checks):
    for number in range(3):
        begin(reopened(witnessed), f"b{number}")
        assert len(reopened(witnessed).runs()) == number + 2
    assert checks == []
    edit(witnessed.path, "CREATE TABLE foreign_table (x)")
    for _ in range(3):
        assert len(reopened(witnessed).runs()) == 4
    assert checks == [1]


def test_without_a_witness_every_object_checks_once_and_none_is_made(tmp_path, checks):
    begin(Ledger(tmp_path / "home"), "a")
    checks.clear()
    other = Ledger(tmp_path / "home", state=tmp_path / "state")
    for _ in range(3):
        other.runs()
    assert checks == [1]
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("statement", ["UPDATE runs SET reason = 'x'", "UPDATE runs SET reason = x'00ff'",
                                       "UPDATE runs SET reason = CAST(x'ff' AS TEXT)", "DELETE FROM runs",
                                       "DROP TABLE marks"])  # fmt: skip
def test_an_altered_ledger_is_neither_read_nor_written(witnessed, statement):
    assert len(witnessed.runs()) == 1
    seen = witnessed.witness.seen()
    edit(witnessed.path, statement)
    for ledger in (witnessed, reopened(witnessed), Ledger(witnessed.root)):
        for use in (ledger.runs, ledger.champions, ledger.check, lambda ledger=ledger: begin(ledger, "b")):
            with pytest.raises(StorageError, match="TG0580"):
                use()
    assert witnessed.witness.seen() == seen


def test_bytes_where_another_program_noted_a_change_are_named(witnessed):
    with closing(sqlite3.connect(witnessed.path)) as db, db:
        db.execute("INSERT INTO touched (book, row_key) VALUES ('runs', x'00ff')")
    with pytest.raises(StorageError, match=r"TG0580.*of runs was changed by another program"):
        begin(witnessed, "b")


def test_an_open_ledger_notices_that_its_file_was_exchanged_restored_or_removed(witnessed, tmp_path):
    shutil.copy(witnessed.path, tmp_path / "earlier")
    begin(witnessed, "b")
    shutil.copy(witnessed.path, tmp_path / "now")
    other = Ledger(tmp_path / "other")
    for number in range(9):
        begin(other, str(number))
    for file in (tmp_path / "earlier", other.path):
        shutil.copy(file, witnessed.path)
        for ledger in (witnessed, reopened(witnessed)):
            with pytest.raises(StorageError, match="TG0581"):
                ledger.runs()
        shutil.copy(tmp_path / "now", witnessed.path)
        assert len(witnessed.runs()) == 2
    remove(witnessed)
    for ledger in (witnessed, reopened(witnessed)):
        with pytest.raises(StorageError, match="TG0581"):
            ledger.runs()


def test_a_reader_is_not_confused_by_a_writer_that_commits_meanwhile(witnessed, monkeypatch):
    """The witness is read before the ledger: it may be older than what is read, never newer."""
    reader = reopened(witnessed)
    read = reader.kept.read

    def read_late():
        begin(reopened(witnessed), "meanwhile")
        return read()

    monkeypatch.setattr(reader.kept, "read", read_late)
    assert len(reader.runs()) == 2


def test_a_ledger_where_this_user_may_not_write_is_opened_for_reading(witnessed, caplog):
    with read_only(witnessed.root):
        for _ in range(2):
            ledger = reopened(witnessed)
            assert [row.status for row in ledger.runs()] == ["RUNNING"]
            assert ledger.mark_interrupted() == ()
            with pytest.raises(StorageError, match="TG0554"):
                begin(ledger, "b")
    assert caplog.text.count("is opened for reading only") == 1
    edit(witnessed.path, "UPDATE runs SET reason = 'x'")
    with read_only(witnessed.root), pytest.raises(StorageError, match="TG0580"):
        reopened(witnessed).runs()


@pytest.mark.parametrize("has_index", [True, False])
def test_a_read_only_copy_of_a_ledger_in_use_is_read_to_its_last_entry_or_not_at_all(witnessed, tmp_path, has_index):
    with closing(sqlite3.connect(witnessed.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        begin(witnessed, "b")
        shutil.copytree(witnessed.root, tmp_path / "copy")
    assert (tmp_path / "copy" / "ledger.sqlite-wal").stat().st_size > 0
    if not has_index:
        (tmp_path / "copy" / "ledger.sqlite-shm").unlink()
    with read_only(tmp_path / "copy"):
        if has_index:
            assert [row.run_id for row in Ledger(tmp_path / "copy").runs()] == ["b", "a"]
        else:
            with pytest.raises(StorageError, match=r"TG0554.*ledger.sqlite-wal"):
                Ledger(tmp_path / "copy").runs()


def test_what_another_program_wrote_just_after_our_commit_is_not_believed(witnessed, monkeypatch):
    settled = type(witnessed.kept)._settled

    def late(kept, db, others):
        edit(witnessed.path, "UPDATE runs SET reason = 'x'")
        return settled(kept, db, others)

    monkeypatch.setattr(type(witnessed.kept), "_settled", late)
    begin(witnessed, "b")
    for ledger in (witnessed, reopened(witnessed)):
        with pytest.raises(StorageError, match="TG0580"):
            ledger.runs()


def test_what_another_program_writes_while_the_ledger_is_opened_is_not_believed(witnessed, monkeypatch):
    mark, reader = witnessed.kept.mark, reopened(witnessed)

    def slow(db):
        if not done:
            done.append(edit(witnessed.path, "UPDATE runs SET reason = 'x'"))
        return mark(db)

    done: list[None] = []
    monkeypatch.setattr(reader.kept, "mark", slow)
    assert [row.reason for row in reader.runs()] == [""]
    for ledger in (reader, reopened(witnessed)):
        with pytest.raises(StorageError, match="TG0580"):
            ledger.runs()


def test_a_check_that_fails_while_another_process_writes_is_repeated(witnessed, monkeypatch):
    """Without permission to write there, SQLite reads without locks, and may see half of a commit."""
    check_books, done = base.check_books, []

    def torn(db):
        if not done:
            done.append(1)
            begin(Ledger(witnessed.root), "b")
            raise altered("half of a commit")
        check_books(db)

    monkeypatch.setattr(base, "check_books", torn)
    witnessed.check()
    assert len(reopened(witnessed).runs()) == 2


def test_of_threads_that_open_a_changed_ledger_one_checks_it(witnessed, monkeypatch):
    check_books, done = base.check_books, []

    def slow(db):
        done.append(1)
        time.sleep(0.3)
        check_books(db)

    monkeypatch.setattr(base, "check_books", slow)
    edit(witnessed.path, "CREATE TABLE foreign_table (x)")
    threads = [threading.Thread(target=witnessed.runs) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [1]
