"""Locks: one holder, whose name others see, freed by the kernel."""

import threading
import time
from contextlib import contextmanager

import pytest

from flows.workspace.lock import hold, is_locked, pipeline_lock
from schemas.errors import SecurityError


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
