"""The store: complete results or none, one maker per key, damaged results found and set aside."""

import json

import pytest

from flows.graph.keys import step_key
from flows.graph.store import Damage, Store
from schemas.artifacts import TicketTable
from tasks.storage.failpoint import PLACES
from tasks.storage.sealed_folder import verify

STORE_PLACES = [place for place in PLACES if place.startswith("store.")]


@pytest.mark.parametrize("place", STORE_PLACES)
def test_a_process_killed_anywhere_leaves_a_complete_result_or_none_and_a_rerun_completes(kit, start, tmp_path, place):
    home, journal = tmp_path / "home", tmp_path / "journal"
    killed = start(home, "obtain", journal, 0, failpoint=place)
    killed.communicate()
    assert killed.returncode == -9

    key = step_key(kit.table_node(journal), {}).key
    assert not isinstance(Store(home).look("table", key, TicketTable, deep=True), Damage)

    again = kit.table_of(home, journal)
    assert again.key == key
    assert verify(again.result.root) == again.result.digest
    assert again.reused == (place in ("store.renamed", "store.committed"))
    assert [path.name for path in (home / "store" / "table").iterdir()] == [again.key]
    assert list((home / "scratch" / "table").iterdir()) == []
    assert {path.name for path in again.result.root.iterdir()} == {"MANIFEST.json", "artifact.json", "parts", "two.txt"}


@pytest.mark.parametrize("place", STORE_PLACES)
def test_temporary_files_of_a_killed_process_are_removed_by_the_next_one(kit, start, tmp_path, place):
    home, journal = tmp_path / "home", tmp_path / "journal"
    start(home, "obtain", journal, 0, failpoint=place).communicate()
    assert list((home / "tmp").iterdir())
    kit.table_of(home, journal, threshold=0.5)
    assert list((home / "tmp").iterdir()) == []


def test_work_in_progress_of_a_live_process_is_not_removed(kit, start, tmp_path):
    home, journal = tmp_path / "home", tmp_path / "journal"
    slow = start(home, "obtain", journal, 1.5)
    while not journal.exists():
        assert slow.poll() is None
    kit.table_of(home, tmp_path / "other", threshold=0.5)
    out, err = slow.communicate()
    assert slow.returncode == 0, err
    assert json.loads(out)["reused"] is False


def test_scratch_survives_a_kill_and_is_removed_with_the_commit(kit, start, tmp_path):
    home, journal = tmp_path / "home", tmp_path / "journal"
    start(home, "obtain", journal, 0, failpoint="store.produced").communicate()
    kit.table_of(home, journal)
    assert [line.split()[0] for line in journal.read_text().splitlines()] == ["began", "resumed"]
    assert list((home / "scratch" / "table").iterdir()) == []


def test_of_two_processes_that_need_the_same_result_one_makes_it(start, tmp_path):
    home, journal = tmp_path / "home", tmp_path / "journal"
    both = [start(home, "obtain", journal, 1.5) for _ in range(2)]
    answers = [json.loads(process.communicate()[0]) for process in both]
    assert len(journal.read_text().splitlines()) == 1
    assert sorted(one["reused"] for one in answers) == [False, True]
    assert answers[0]["digest"] == answers[1]["digest"]


def test_the_waiting_process_makes_the_result_when_the_maker_is_killed(start, tmp_path):
    home, journal = tmp_path / "home", tmp_path / "journal"
    maker = start(home, "obtain", journal, 60)
    while not journal.exists():
        assert maker.poll() is None
    waiting = start(home, "obtain", journal, 0)
    with pytest.raises(Exception, match="timed out"):
        waiting.wait(timeout=2)
    maker.kill()
    assert json.loads(waiting.communicate()[0])["reused"] is False
