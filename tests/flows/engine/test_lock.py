"""Locks: one holder, named to the others, freed by the kernel."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest

from flows.engine.ledger import Ledger
from flows.engine.lock import hold, is_locked, pipeline_lock
from schemas.errors import LockedError, SecurityError


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


def wait_until_held(process):
    assert process.stdout.readline() == "holding\n"


def test_a_second_run_is_refused_and_told_who_holds_the_pipeline(start, tmp_path):
    holder = start(tmp_path, "hold", "support", 60)
    wait_until_held(holder)
    with (
        pytest.raises(LockedError, match=rf"TG0520.*pid {holder.pid} .*since 20.*run run-{holder.pid}") as caught,
        pipeline_lock(tmp_path, "support", wait_s=0, run_id="second"),
    ):
        pass
    assert caught.value.exit_code == 6
    assert "--wait" in caught.value.hint
    assert is_locked(tmp_path, "support").pid == holder.pid


def test_kill_9_frees_the_pipeline_at_once(start, tmp_path):
    holder = start(tmp_path, "hold", "support", 60)
    wait_until_held(holder)
    holder.kill()
    holder.wait()
    assert is_locked(tmp_path, "support") is None
    with pipeline_lock(tmp_path, "support", wait_s=0, run_id="second"):
        assert is_locked(tmp_path, "support").run == "second"
    assert is_locked(tmp_path, "support") is None


def test_who_waits_gets_the_pipeline_when_it_is_free(start, tmp_path):
    holder = start(tmp_path, "hold", "support", 1)
    wait_until_held(holder)
    with pipeline_lock(tmp_path, "support", wait_s=30, run_id="second"):
        assert holder.wait() == 0


def test_pipelines_do_not_lock_each_other_out(tmp_path):
    with pipeline_lock(tmp_path, "a", wait_s=0, run_id="1"), pipeline_lock(tmp_path, "b", wait_s=0, run_id="2"):
        assert is_locked(tmp_path, "a").run == "1"
        assert is_locked(tmp_path, "b").run == "2"


def test_the_lock_is_freed_when_the_block_fails(tmp_path):
    with pytest.raises(ValueError, match="no"), pipeline_lock(tmp_path, "a", wait_s=0, run_id="1"):
        raise ValueError("no")
    assert is_locked(tmp_path, "a") is None


def test_looking_makes_no_file_and_does_not_stop_a_run(tmp_path):
    assert is_locked(tmp_path / "home", "a") is None
    assert not (tmp_path / "home").exists()
    with pipeline_lock(tmp_path, "a", wait_s=0, run_id="1"):
        pass
    stop = threading.Event()

    def look():
        while not stop.is_set():
            is_locked(tmp_path, "a")
            time.sleep(0.001)  # without it the look is held for a third of the time

    with running(look):
        try:
            for number in range(20):
                with pipeline_lock(tmp_path, "a", wait_s=0, run_id=str(number)):
                    pass
        finally:
            stop.set()


def test_several_who_look_do_not_take_each_other_for_a_run(tmp_path):
    with pipeline_lock(tmp_path, "a", wait_s=0, run_id="1"):
        pass
    seen = []

    def look():
        seen.extend(is_locked(tmp_path, "a") for _ in range(500))

    with running(look, look, look):
        pass
    assert seen == [None] * 1500


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden"])
def test_names_that_would_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(SecurityError):
        is_locked(tmp_path, name)


def test_a_throw_away_lock_keeps_threads_apart_and_leaves_no_file(tmp_path):
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


def test_asking_once_for_a_held_lock_says_no(tmp_path):
    with hold(tmp_path / "x.lock") as first, hold(tmp_path / "x.lock", wait_s=0) as second:
        assert first
        assert not second


def test_runs_whose_process_is_gone_are_marked_interrupted_and_living_ones_are_not(start, tmp_path):
    dead, alive = start(tmp_path, "hold", "first", 60), start(tmp_path, "hold", "second", 60)
    for process in (dead, alive):
        wait_until_held(process)
    ledger = Ledger(tmp_path)
    assert ledger.mark_interrupted() == ()
    dead.kill()
    dead.wait()
    assert [row.run_id for row in ledger.mark_interrupted()] == [f"run-{dead.pid}"]
    assert ledger.run(f"run-{dead.pid}").status == "INTERRUPTED"
    assert ledger.run(f"run-{alive.pid}").status == "RUNNING"
    assert ledger.mark_interrupted() == ()


def test_an_older_run_is_interrupted_although_a_new_one_holds_its_pipeline(start, tmp_path):
    dead = start(tmp_path, "hold", "first", 60)
    wait_until_held(dead)
    dead.kill()
    dead.wait()
    with pipeline_lock(tmp_path, "first", wait_s=0, run_id="new"):
        assert [row.run_id for row in Ledger(tmp_path).mark_interrupted()] == [f"run-{dead.pid}"]
