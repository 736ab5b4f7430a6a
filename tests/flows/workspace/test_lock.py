"""Locks: one holder, whose name others see, freed by the kernel."""

import threading
import time
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from flows.ledger.ledger import Ledger
from flows.workspace.lock import Holder, hold, is_locked, lock_file, pipeline_lock
from schemas.errors import ConfigError, LockedError, SecurityError


@contextmanager
def running(*functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


def test_pipelines_do_not_block_each_other(tmp_path):
    with pipeline_lock(tmp_path, "a", wait_s=0, run_id="1"), pipeline_lock(tmp_path, "b", wait_s=0, run_id="2"):
        assert is_locked(tmp_path, "a").run == "1"
        assert is_locked(tmp_path, "b").run == "2"


def test_the_lock_is_released_when_the_block_fails(tmp_path):
    with pytest.raises(ValueError, match="no"), pipeline_lock(tmp_path, "a", wait_s=0, run_id="1"):
        raise ValueError("no")
    assert is_locked(tmp_path, "a") is None


def test_looking_at_a_lock_makes_no_file_and_blocks_no_run(tmp_path):
    assert is_locked(tmp_path / "home", "a") is None
    assert not (tmp_path / "home").exists()
    with pipeline_lock(tmp_path, "a", wait_s=0, run_id="1"):
        pass
    stop = threading.Event()

    def look():
        while not stop.is_set():
            is_locked(tmp_path, "a")
            time.sleep(0.001)  # otherwise the look would hold the lock a third of the time

    with running(look):
        try:
            for number in range(20):
                with pipeline_lock(tmp_path, "a", wait_s=0, run_id=str(number)):
                    pass
        finally:
            stop.set()


def test_concurrent_looks_do_not_mistake_each_other_for_a_run(tmp_path):
    with pipeline_lock(tmp_path, "a", wait_s=0, run_id="1"):
        pass
    seen = []

    def look():
        seen.extend(is_locked(tmp_path, "a") for _ in range(500))

    with running(look, look, look):
        pass
    assert seen == [None] * 1500


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden"])
def test_names_that_point_outside_the_folder_are_refused(tmp_path, name):
    with pytest.raises(SecurityError, match="TG0801"):
        is_locked(tmp_path, name)
    with pytest.raises(SecurityError, match="TG0801"), pipeline_lock(tmp_path, name, wait_s=0, run_id="1"):
        pass


def test_a_temporary_lock_excludes_threads_and_leaves_no_file(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(5):
            with hold(tmp_path / "x.lock"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    with running(work, work, work, work):
        pass
    assert len(most) == 20
    assert max(most) == 1
    assert list(tmp_path.iterdir()) == []


def test_trying_a_held_lock_without_waiting_fails(tmp_path):
    with hold(tmp_path / "x.lock") as first, hold(tmp_path / "x.lock", wait_s=0) as second:
        assert first
        assert not second


def test_a_resource_is_held_against_runs_of_the_ledger_and_a_lock_file_against_those_of_others(tmp_path):
    one, other, file = Ledger(tmp_path / "one"), Ledger(tmp_path / "other"), str(tmp_path / "gpu.lock")
    with one.resource_lock("gpu", wait_s=0, run_id="1"), one.resource_lock(file, wait_s=0, run_id="1"):
        assert one.holder_of("resource.gpu").run == "1"
        with pytest.raises(LockedError, match=r"TG0520.*run 1"), one.resource_lock("gpu", wait_s=0, run_id="2"):
            pass
        with other.resource_lock("gpu", wait_s=0, run_id="3"), one.resource_lock("tpu", wait_s=0, run_id="2"):
            pass
        with pytest.raises(LockedError, match=r"TG0520.*run 1"), other.resource_lock(file, wait_s=0, run_id="3"):
            pass
    with other.resource_lock(file, wait_s=0, run_id="3"), one.resource_lock("gpu", wait_s=0, run_id="2"):
        pass


def test_a_file_with_other_content_is_not_taken_for_a_lock_file(tmp_path):
    notes, link = tmp_path / "notes.csv", tmp_path / "link.lock"
    notes.write_text("ticket_id,body")
    link.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    for path in (notes, link, tmp_path / "folder", tmp_path / "absent" / "gpu.lock", Path("/dev/null")):
        with pytest.raises(ConfigError, match="TG0110"), lock_file(path, wait_s=0, run_id="1"):
            pass
    assert notes.read_text() == "ticket_id,body"
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_file_that_a_killed_run_has_left_is_taken_again(tmp_path):
    path = tmp_path / "gpu.lock"
    path.write_bytes(orjson.dumps(Holder(pid=1, since="2026-06-01T00:00:00+00:00", host="one", run="1").model_dump()))
    with lock_file(path, wait_s=0, run_id="2"):
        assert Holder.model_validate_json(path.read_bytes()).run == "2"
    assert path.read_bytes() == b""
