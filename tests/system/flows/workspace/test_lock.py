"""Locks: one holder, whose name others see, freed by the kernel."""

import pytest

from flows.ledger.ledger import Ledger
from flows.workspace.lock import is_locked, pipeline_lock
from schemas.errors import LockedError


def wait_until_held(process):
    assert process.stdout.readline() == "holding\n"


def test_a_second_run_is_refused_with_the_holder_of_the_pipeline(start, tmp_path):
    holder = start(tmp_path, "hold", "support", 60)
    wait_until_held(holder)
    with (
        pytest.raises(LockedError, match=rf"TG0520.*run run-{holder.pid}: pid {holder.pid} .*since 20") as caught,
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


def test_a_waiting_run_gets_the_pipeline_when_it_is_free(start, tmp_path):
    holder = start(tmp_path, "hold", "support", 1)
    wait_until_held(holder)
    with pipeline_lock(tmp_path, "support", wait_s=30, run_id="second"):
        assert holder.wait() == 0


def test_runs_of_dead_processes_are_marked_interrupted_and_live_ones_are_not(start, tmp_path):
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


def test_an_older_run_is_marked_interrupted_although_a_new_one_holds_its_pipeline(start, tmp_path):
    dead = start(tmp_path, "hold", "first", 60)
    wait_until_held(dead)
    dead.kill()
    dead.wait()
    with pipeline_lock(tmp_path, "first", wait_s=0, run_id="new"):
        assert [row.run_id for row in Ledger(tmp_path).mark_interrupted()] == [f"run-{dead.pid}"]
