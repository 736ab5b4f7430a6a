"""The store: complete results or none, one maker per key, damaged results found and set aside."""

import logging
import shutil
import stat
import threading

import pytest

from flows.graph.store import Damage, Store
from schemas.artifacts import Artifact, TicketTable
from schemas.errors import SecurityError, StorageError
from tasks.storage.sealed_folder import MANIFEST, seal, verify


def test_a_result_is_made_once_and_then_reused(kit, tmp_path):
    first = kit.table_of(tmp_path / "home", tmp_path / "journal")
    second = kit.table_of(tmp_path / "home", tmp_path / "journal")
    assert not first.reused
    assert first.seconds > 0
    assert second.reused
    assert second.result == first.result
    assert first.result.rows.n_in == 3
    assert first.result.digest == verify(first.result.root)
    assert len((tmp_path / "journal").read_text().splitlines()) == 1


def test_only_the_owner_can_read_results(kit, tmp_path):
    kit.table_of(tmp_path / "home", tmp_path / "journal")
    for path in [tmp_path / "home", *(tmp_path / "home").rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if "keys" not in path.parts:
            assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_reader_never_sees_a_half_result(tmp_path):
    store, stop, seen = Store(tmp_path / "home"), threading.Event(), set()

    def produce(out):
        for number in range(100):
            (out / f"{number}.txt").write_text(str(number))
        return Artifact(root=out)

    def read():
        while not stop.is_set():
            found = Store(tmp_path / "home").look("table", "k1", Artifact)
            seen.add(type(found).__name__)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        store.obtain("table", "k1", Artifact, produce)
    finally:
        stop.set()
        reader.join()
    assert "NoneType" in seen
    assert seen <= {"NoneType", "Artifact"}


def test_a_result_that_appears_first_without_the_lock_wins(kit, tmp_path):
    """As from another machine on a file system without locks."""
    first = kit.table_of(tmp_path / "theirs", tmp_path / "journal")
    theirs, key, store = first.result, first.key, Store(tmp_path / "home")

    def produce(out):
        shutil.copytree(theirs.root, store.place("table", key))
        (out / "ours.txt").write_text("slower, and different")
        return theirs.model_copy(update={"root": out, "digest": ""})

    got = store.obtain("table", key, TicketTable, produce)
    assert got.artifact.digest == theirs.digest
    assert got.artifact.root == store.place("table", key)
    assert not (got.artifact.root / "ours.txt").exists()


def cut(root):
    (root / "two.txt").write_text("t")


def add(root):
    (root / "three.txt").write_text("3")


def remove(root):
    (root / "parts" / "one.txt").unlink()


def lose_manifest(root):
    (root / MANIFEST).unlink()


def garble_reference(root):
    path = root / "artifact.json"
    path.write_bytes(b"x" * path.stat().st_size)


@pytest.mark.parametrize("harm", [cut, add, remove, lose_manifest, garble_reference])
def test_a_damaged_result_is_reported_set_aside_and_made_again(kit, tmp_path, caplog, harm):
    home, journal = tmp_path / "home", tmp_path / "journal"
    good = kit.table_of(home, journal).result
    harm(good.root)
    with caplog.at_level(logging.WARNING, "tunegate.store"):
        again = kit.table_of(home, journal)
    assert "TG0510" in caplog.text
    assert not again.reused
    assert again.result == good
    assert len(list((home / "damaged").iterdir())) == 1


def test_only_the_deep_check_finds_a_flipped_bit(kit, tmp_path):
    store = Store(tmp_path / "home")
    made = kit.table_of(tmp_path / "home", tmp_path / "journal")
    (made.result.root / "two.txt").write_text("twp\n")
    assert isinstance(store.look("table", made.key, TicketTable), TicketTable)
    damage = store.look("table", made.key, TicketTable, deep=True)
    assert isinstance(damage, Damage)
    assert store.find("table", made.key, TicketTable, deep=True) is None
    assert store.find("table", made.key, TicketTable) is None


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_result_that_is_not_the_recorded_one_is_damaged(kit, tmp_path, deep):
    made = kit.table_of(tmp_path / "home", tmp_path / "journal")
    store = Store(tmp_path / "home", recorded={made.key: frozenset({made.result.digest})}.__getitem__)
    assert store.look("table", made.key, TicketTable, deep=deep) == made.result
    (made.result.root / "two.txt").write_text("exchanged\n")
    seal(made.result.root)
    assert isinstance(store.look("table", made.key, TicketTable, deep=deep), Damage)


def test_a_full_disk_is_reported_with_its_path_and_leaves_no_files(tmp_path):
    store = Store(tmp_path / "home")

    def produce(out):
        with open("/dev/full", "wb") as stream:  # noqa: PTH123 - the device that is always full
            stream.write(b"x")
        return Artifact(root=out)

    with pytest.raises(StorageError, match=r"TG0501.*bytes are free") as caught:
        store.obtain("table", "k1", Artifact, produce)
    assert caught.value.where == str(tmp_path / "home")
    assert store.find("table", "k1", Artifact) is None
    assert list((tmp_path / "home" / "tmp").iterdir()) == []


def test_a_failed_step_leaves_no_result_and_keeps_its_own_error(tmp_path):
    store = Store(tmp_path / "home")

    def produce(out):
        (out / "half.txt").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.obtain("table", "k1", Artifact, produce)
    assert store.find("table", "k1", Artifact) is None
    assert list((tmp_path / "home" / "tmp").iterdir()) == []


def test_a_result_that_contains_a_link_is_refused(tmp_path):
    def produce(out):
        (out / "passwd").symlink_to("/etc/passwd")
        return Artifact(root=out)

    with pytest.raises(StorageError, match=r"TG0510.*passwd is a link"):
        Store(tmp_path).obtain("table", "k1", Artifact, produce)


@pytest.mark.parametrize(("step", "key"), [("../x", "k"), ("x", "../k"), ("", "k"), ("x", "a/b"), (".x", "k")])
def test_names_that_point_outside_the_store_are_refused(tmp_path, step, key):
    with pytest.raises(SecurityError, match="TG0801"):
        Store(tmp_path).look(step, key, Artifact)
    with pytest.raises(SecurityError, match="TG0801"):
        Store(tmp_path).place(step, key)
