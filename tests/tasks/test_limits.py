"""Limits on foreign code: it is stopped when it uses the processor too long, but not when it waits."""

import time

import pytest

from tasks.limits import python_deadline


def _count(seconds: float) -> int:
    turns, until = 0, time.thread_time() + seconds
    while time.thread_time() < until:
        turns += 1
    return turns


def test_endless_python_is_stopped() -> None:
    with pytest.raises(TimeoutError), python_deadline(0.05):
        _count(60)


def test_a_wait_for_a_busy_machine_does_not_count() -> None:
    with python_deadline(0.5):
        time.sleep(0.7)
        assert _count(0.01) > 0
