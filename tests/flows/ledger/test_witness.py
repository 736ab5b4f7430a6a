"""A ledger that is not the one seen here before is refused, whatever it contains."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from flows.ledger.ledger import Ledger
from schemas.errors import ConfigError, StorageError


@pytest.fixture
def witnessed(tmp_path):
    """An empty ledger with its witness outside the home folder."""
    return Ledger(tmp_path / "home", state=tmp_path / "state")


def begin(ledger, run_id):
    ledger.start_run(run_id, pipeline="small", model_name="replies", config_json="{}")


def reopened(ledger):
    """The same ledger, as another process opens it."""
    return Ledger(ledger.root, getattr(ledger.kept, "url", None), state=ledger.witness.path.parents[1])


def remove(ledger):
    """Remove the ledger from a home folder with results."""
    (ledger.root / "store" / "train" / "k").mkdir(parents=True, exist_ok=True)
    for file in ledger.root.glob("ledger.sqlite*"):
        file.unlink()


def test_the_witness_is_a_private_file_outside_the_home_that_follows_the_ledger(witnessed, tmp_path):
    begin(witnessed, "a")
    first = witnessed.witness.seen()
    assert witnessed.witness.path.stat().st_mode & 0o777 == 0o600
    assert not witnessed.witness.path.is_relative_to(witnessed.root)
    begin(witnessed, "b")
    second = witnessed.witness.seen()
    assert second.ledger == first.ledger
    assert second.seq > first.seq
    reopened(witnessed).check()


def test_reading_makes_no_witness(witnessed):
    assert witnessed.runs() == ()
    witnessed.check()
    assert not witnessed.witness.path.exists()


def test_without_a_witness_one_is_made_from_the_existing_ledger(witnessed):
    begin(Ledger(witnessed.root), "a")
    begin(witnessed, "b")
    assert witnessed.witness.seen().ledger == witnessed.identity()


def test_a_removed_ledger_is_not_replaced_unless_a_person_accepts_it(witnessed):
    begin(witnessed, "a")
    former = witnessed.witness.seen()
    remove(witnessed)
    fresh = reopened(witnessed)
    with pytest.raises(StorageError, match=r"TG0581.*there is no ledger"):
        begin(fresh, "b")
    with pytest.raises(StorageError, match="TG0581"):
        fresh.check()
    assert not witnessed.path.exists()
    with pytest.raises(ConfigError, match="TG0139"):
        fresh.accept("new", reason=" ", actor="ada")
    with pytest.raises(StorageError, match=r"TG0581.*there is no ledger"):
        fresh.accept("restored", reason="r", actor="ada")
    fresh.accept("new", reason="the disk is gone", actor="ada")
    begin(reopened(witnessed), "b")
    (row,) = reopened(witnessed).acceptances()
    assert (row.kind, row.reason, row.actor) == ("new", "the disk is gone", "ada")
    assert former.ledger in row.former
    with pytest.raises(StorageError, match=r"TG0581.*there is a ledger"):
        fresh.accept("new", reason="r", actor="ada")


def test_results_without_ledger_and_witness_are_refused(witnessed):
    (witnessed.root / "store" / "train" / "k").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"TG0581.*no ledger"):
        begin(witnessed, "a")
    witnessed.accept("new", reason="results of another machine", actor="ada")
    begin(witnessed, "a")


def test_an_earlier_state_of_the_same_ledger_is_refused_until_it_is_accepted(witnessed, tmp_path):
    begin(witnessed, "a")
    shutil.copytree(witnessed.root, tmp_path / "backup")
    begin(witnessed, "b")
    shutil.rmtree(witnessed.root)
    shutil.copytree(tmp_path / "backup", witnessed.root)
    old = reopened(witnessed)
    with pytest.raises(StorageError, match=r"TG0581.*restored to an earlier state"):
        begin(old, "c")
    old.accept("restored", reason="disk failure", actor="ada")
    begin(reopened(witnessed), "c")
    assert [row.run_id for row in reopened(witnessed).runs()] == ["c", "a"]


def test_a_removed_home_starts_over_and_its_history_records_that(witnessed, caplog):
    begin(witnessed, "a")
    former = witnessed.witness.seen()
    shutil.rmtree(witnessed.root)
    fresh = reopened(witnessed)
    fresh.check()
    begin(fresh, "b")
    (row,) = reopened(witnessed).acceptances()
    assert (row.kind, row.reason, row.actor) == ("new", "the home folder was removed", "tunegate")
    assert former.ledger in row.former
    assert "is empty: a new one begins" in caplog.text
    assert reopened(witnessed).witness.seen().ledger == fresh.identity() != former.ledger
    begin(reopened(witnessed), "c")


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_kill_while_a_removed_home_starts_over_is_harmless(witnessed, monkeypatch, is_committed):
    begin(witnessed, "a")
    shutil.rmtree(witnessed.root)
    killed = reopened(witnessed)
    if is_committed:
        monkeypatch.setattr(killed.witness, "move", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            begin(killed, "b")
    else:
        with pytest.raises(ZeroDivisionError), killed.write():
            _ = 1 / 0
    begin(reopened(witnessed), "c")
    reopened(witnessed).check()
    assert [row.run_id for row in reopened(witnessed).runs()] == (["c", "b"] if is_committed else ["c"])
    assert [row.reason for row in reopened(witnessed).acceptances()] == ["the home folder was removed"]
    assert reopened(witnessed).witness.seen().following == ""


def test_another_ledger_is_refused(witnessed, tmp_path):
    begin(witnessed, "a")
    other = Ledger(tmp_path / "other")
    begin(other, "x")
    remove(witnessed)
    for file in other.root.glob("ledger.sqlite*"):
        shutil.copy(file, witnessed.root)
    with pytest.raises(StorageError, match=r"TG0581.*belongs to ledger"):
        begin(reopened(witnessed), "b")


def test_a_completely_forged_journal_is_refused(witnessed, tmp_path):
    """A program that rewrites the whole ledger with our own code cannot write the witness."""
    begin(witnessed, "a")
    begin(witnessed, "b")
    identity, n_entries = witnessed.identity(), witnessed.witness.seen().seq
    remove(witnessed)
    forger = Ledger(witnessed.root)
    with forger.write() as db:
        db.execute("INSERT INTO identity (id, created_at) VALUES (?, '')", (identity,))
    for number in range(n_entries):
        begin(forger, f"forged-{number}")
    forger.check()
    with pytest.raises(StorageError, match=r"TG0581.*not the one that was written"):
        begin(reopened(witnessed), "c")


def test_an_altered_ledger_is_not_accepted(witnessed):
    begin(witnessed, "a")
    with closing(sqlite3.connect(witnessed.path)) as db, db:
        db.execute("UPDATE runs SET reason = 'x'")
    with pytest.raises(StorageError, match="TG0580"):
        reopened(witnessed).accept("restored", reason="r", actor="ada")


def test_an_unreadable_witness_is_an_error_and_an_acceptance_replaces_it(witnessed):
    begin(witnessed, "a")
    witnessed.witness.path.write_text("{")
    with pytest.raises(StorageError, match=r"TG0581.*cannot be read"):
        begin(reopened(witnessed), "b")
    row = reopened(witnessed).accept("restored", reason="the witness was damaged", actor="ada")
    assert row.former == ""  # later readers expect JSON
    begin(reopened(witnessed), "b")


def test_a_read_only_state_folder_causes_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    ledger = Ledger(tmp_path / "home", state=tmp_path / "file" / "state")
    begin(ledger, "a")
    assert "no witness" in caplog.text
