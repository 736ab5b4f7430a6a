"""Processes of a step end with their run, whichever thread waits for them."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import TrainingError
from tasks.compute import children as module
from tasks.compute.children import Children, start_group
from tests.support.processes import is_running


@pytest.fixture
def children() -> Iterator[Children]:
    found = Children()
    yield found
    found.end()


def _wait_for(path: Path) -> str:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


def test_end_in_another_thread_stops_a_process_and_its_descendants(
    tmp_path: Path, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.3)
    raised: list[TrainingError] = []

    def work() -> None:
        # Both shells ignore SIGTERM, so SIGKILL is needed.
        script = f"trap '' TERM; sh -c 'sleep 60; true' & echo $! > {tmp_path}/pid; wait; sleep 60; true"
        try:
            with (tmp_path / "log").open("wb") as log:
                children.run(["sh", "-c", script], output=log, timeout_s=60)
        except TrainingError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    grandchild = int(_wait_for(tmp_path / "pid"))
    started = time.monotonic()
    children.end()
    thread.join()
    assert time.monotonic() - started < 10
    assert [error.code for error in raised] == ["TG0408"]
    assert not raised[0].transient
    while is_running(grandchild):
        assert time.monotonic() - started < 30
        time.sleep(0.01)


def test_after_the_end_no_process_starts_until_it_is_reopened(tmp_path: Path, children: Children) -> None:
    children.end()
    children.end()
    command = ["touch", str(tmp_path / "touched")]
    with (tmp_path / "log").open("wb") as log:
        with pytest.raises(TrainingError, match=r"TG0408.*before this process was started"):
            children.run(command, output=log, timeout_s=30)
        assert not (tmp_path / "touched").exists()
        children.reopen()
        assert children.run(command, output=log, timeout_s=30) == 0
        assert (tmp_path / "touched").exists()


def test_a_process_ends_with_its_block_or_at_its_timeout(tmp_path: Path, children: Children) -> None:
    with (tmp_path / "log").open("wb") as log:
        with pytest.raises(KeyError), children.running(lambda: start_group(["sleep", "60"], output=log)) as child:
            raise KeyError
        assert child.process.returncode == -signal.SIGTERM
        with pytest.raises(subprocess.TimeoutExpired):
            children.run(["sleep", "60"], output=log, timeout_s=0.05)
        assert children.run(["sh", "-c", "kill -9 $$"], output=log, timeout_s=30) == -signal.SIGKILL
