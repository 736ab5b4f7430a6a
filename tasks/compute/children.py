"""Child processes of steps, tracked so that cancelling a run ends them all.

Heavy work runs in a separate process: unlike a thread it can have a deadline, be killed for its memory and be stopped.
To cancel a run, call `end` from another thread, by default on `THIS_PROCESS`.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO

from schemas.errors import TrainingError

GRACE_S = 10.0
"""Seconds between SIGTERM (finish the step, save a checkpoint) and SIGKILL. Prefect's worker grants a run 30."""
_PR_SET_PDEATHSIG = 1


class Child:
    """A running process that leads its own process group.

    Args:
        process: The group's leader, for example from `start_group`.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.stopped = False
        """We have sent it a signal, so the signal it died of may be ours."""

    def send(self, number: int) -> None:
        """Send a signal to the process and its children."""
        self.stopped = True
        if self.process.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(self.process.pid, number)


class Children:
    """The child processes of a run, from all of its threads."""

    def __init__(self) -> None:
        self._running: set[Child] = set()
        self._ended = False
        self._lock = threading.Lock()

    @contextmanager
    def running(self, start: Callable[[], subprocess.Popen[bytes]]) -> Iterator[Child]:
        """Start a process; leaving the block stops it and waits for its end.

        The thread that starts a process must wait for it: to Linux, the end of that thread is the parent's death.

        Args:
            start: Starts the leader of a process group.

        Raises:
            TrainingError: TG0408, not started because `end` was called.
        """
        with self._lock:
            if self._ended:
                raise TrainingError(
                    "the run was ended before this process was started", code="TG0408", hint="run again"
                )
            child = Child(start())
            self._running.add(child)
        try:
            yield child
        finally:
            if child.process.poll() is None:
                _stop([child])
            with self._lock:
                self._running.discard(child)

    def run(
        self, command: list[str], *, output: IO[bytes], timeout_s: float, env: Mapping[str, str] | None = None
    ) -> int:
        """Run a command and wait for it; returns its exit code.

        Args:
            command: Program and arguments.
            output: Gets stdout and stderr.
            timeout_s: It is stopped after this many seconds.
            env: Its whole environment; None to inherit this process's.

        Raises:
            TrainingError: TG0408, `end` was called before it finished.
            subprocess.TimeoutExpired: it took longer than `timeout_s`.
        """
        with self.running(lambda: start_group(command, output=output, env=env)) as child:
            code = child.process.wait(timeout_s)
        if code and child.stopped:
            raise TrainingError("the run was ended while this process ran", code="TG0408", hint="run again")
        return code

    def end(self) -> None:
        """Stop all processes and refuse new ones until `reopen`; returns when all have ended, after at most `GRACE_S`.

        Safe to call from any thread, any number of times. A training saves a checkpoint first; its step raises TG0408.
        """
        with self._lock:
            self._ended = True
            running = list(self._running)
        _stop(running)

    def reopen(self) -> None:
        """Allow processes again; call it before the next run in the same process."""
        with self._lock:
            self._ended = False


THIS_PROCESS = Children()
"""The default for all steps."""


def start_group(
    command: list[str], *, output: IO[bytes], env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a command as the leader of a process group, so that a signal to the group also reaches its children."""
    return subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )


def _stop(children: Iterable[Child]) -> None:
    children = list(children)
    deadline = time.monotonic() + GRACE_S
    for child in children:
        child.send(signal.SIGTERM)
    for child in children:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.send(signal.SIGKILL)
            child.process.wait()


def die_with(parent: int) -> None:
    """Make this process get SIGKILL when its parent dies, even by kill -9; call it first in a child process.

    Args:
        parent: The parent's process id.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The kernel does not report a parent that died before the call above.
    if os.getppid() != parent:
        raise SystemExit(1)
