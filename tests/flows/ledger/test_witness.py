"""A ledger that is not the one that was here before is refused, whatever it says itself."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from flows.ledger.ledger import Ledger
from schemas.errors import ConfigError, StorageError


@pytest.fixture
def witnessed(tmp_path):
    """An empty ledger whose witness is kept outside its home."""
    return Ledger(tmp_path / "home", state=tmp_path / "state")


def begin(ledger, run_id):
    ledger.start_run(run_id, pipeline="small", model_name="replies", input_digest="in", config_json="{}")


def again(ledger):
    """The same, as another process opens it."""
    return Ledger(ledger.root, getattr(ledger.kept, "url", None), state=ledger.witness.path.parents[1])


def remove(ledger):
    """Of a home folder with results only the ledger goes."""
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
    again(witnessed).check()


def test_reading_makes_no_witness(witnessed):
    assert witnessed.runs() == ()
    witnessed.check()
    assert not witnessed.witness.path.exists()


def test_where_no_witness_is_one_is_made_of_what_lies_there(witnessed):
    begin(Ledger(witnessed.root), "a")
    begin(witnessed, "b")
    assert witnessed.witness.seen().ledger == witnessed.identity()


def test_a_ledger_that_was_removed_is_not_begun_anew_unless_a_person_says_so(witnessed):
    begin(witnessed, "a")
    former = witnessed.witness.seen()
    remove(witnessed)
    fresh = again(witnessed)
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
    begin(again(witnessed), "b")
    (row,) = again(witnessed).acceptances()
    assert (row.kind, row.reason, row.actor) == ("new", "the disk is gone", "ada")
    assert former.ledger in row.former
    with pytest.raises(StorageError, match=r"TG0581.*there is a ledger"):
        fresh.accept("new", reason="r", actor="ada")


def test_results_without_a_ledger_are_refused_where_no_witness_is_either(witnessed):
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
    old = again(witnessed)
    with pytest.raises(StorageError, match=r"TG0581.*put back to an earlier state"):
        begin(old, "c")
    old.accept("restored", reason="disk failure", actor="ada")
    begin(again(witnessed), "c")
    assert [row.run_id for row in again(witnessed).runs()] == ["c", "a"]


def test_a_home_that_was_removed_begins_anew_and_its_history_says_so(witnessed, caplog):
    begin(witnessed, "a")
    former = witnessed.witness.seen()
    shutil.rmtree(witnessed.root)
    fresh = again(witnessed)
    fresh.check()
    begin(fresh, "b")
    (row,) = again(witnessed).acceptances()
    assert (row.kind, row.reason, row.actor) == ("new", "the home folder was removed", "tunegate")
    assert former.ledger in row.former
    assert "is empty: a new one begins" in caplog.text
    assert again(witnessed).witness.seen().ledger == fresh.identity() != former.ledger
    begin(again(witnessed), "c")


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_kill_while_a_removed_home_begins_anew_stops_nobody(witnessed, monkeypatch, is_committed):
    begin(witnessed, "a")
    shutil.rmtree(witnessed.root)
    killed = again(witnessed)
    if is_committed:
        monkeypatch.setattr(killed.witness, "move", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            begin(killed, "b")
    else:
        with pytest.raises(ZeroDivisionError), killed.write():
            _ = 1 / 0
    begin(again(witnessed), "c")
    again(witnessed).check()
    assert [row.run_id for row in again(witnessed).runs()] == (["c", "b"] if is_committed else ["c"])
    assert [row.reason for row in again(witnessed).acceptances()] == ["the home folder was removed"]
    assert again(witnessed).witness.seen().following == ""


def test_another_ledger_is_refused(witnessed, tmp_path):
    begin(witnessed, "a")
    other = Ledger(tmp_path / "other")
    begin(other, "x")
    remove(witnessed)
    for file in other.root.glob("ledger.sqlite*"):
        shutil.copy(file, witnessed.root)
    with pytest.raises(StorageError, match=r"TG0581.*belongs to ledger"):
        begin(again(witnessed), "b")


def test_a_journal_that_was_forged_from_its_first_line_is_refused(witnessed, tmp_path):
    """Who writes the whole ledger anew with our own code, under its own name, cannot write the witness."""
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
        begin(again(witnessed), "c")


def test_an_altered_ledger_is_not_accepted(witnessed):
    begin(witnessed, "a")
    with closing(sqlite3.connect(witnessed.path)) as db, db:
        db.execute("UPDATE runs SET reason = 'x'")
    with pytest.raises(StorageError, match="TG0580"):
        again(witnessed).accept("restored", reason="r", actor="ada")


def test_a_witness_that_cannot_be_read_refuses_and_an_acceptance_replaces_it(witnessed):
    begin(witnessed, "a")
    witnessed.witness.path.write_text("{")
    with pytest.raises(StorageError, match=r"TG0581.*cannot be read"):
        begin(again(witnessed), "b")
    row = again(witnessed).accept("restored", reason="the witness was damaged", actor="ada")
    assert row.former == ""  # whoever reads it later expects JSON
    begin(again(witnessed), "b")


def test_a_state_folder_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    ledger = Ledger(tmp_path / "home", state=tmp_path / "file" / "state")
    begin(ledger, "a")
    assert "no witness" in caplog.text
