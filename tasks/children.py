"""Processes that a step starts: kept together, so that a run that is cancelled ends them all.

Heavy work runs in a process of its own, which can have a deadline, be killed for its memory and be stopped; a thread
can do none of that. Whoever drives a run calls `end` from another thread, by default of `THIS_PROCESS`. It knows
nothing of what the processes do.
"""

from __future__ import annotations

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
    """A running process that leads a process group of its own.

    Args:
        process: Started so, for example by `start_group`.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.stopped = False
        """We have asked it to end: whatever signal it died of may have been ours."""

    def send(self, number: int) -> None:
        """Send a signal to the process and to those that it has started."""
        self.stopped = True
        if self.process.poll() is None:
            with suppress(ProcessLookupError):  # it has ended since
                os.killpg(self.process.pid, number)


class Children:
    """The child processes of a run, in whatever threads they were started."""

    def __init__(self) -> None:
        self._running: set[Child] = set()
        self._ended = False
        self._lock = threading.Lock()

    @contextmanager
    def running(self, start: Callable[[], subprocess.Popen[bytes]]) -> Iterator[Child]:
        """Start a process; it is stopped, and gone, when the block is left before it has ended.

        The thread that starts a process must wait for it: Linux counts the end of that thread as its parent's death.

        Args:
            start: Starts the leader of a process group.

        Raises:
            TrainingError: TG0408, not started: `end` was called.
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
        """Run a command to its end; returns its exit code.

        Args:
            command: Program and arguments.
            output: Gets stdout and stderr.
            timeout_s: After so many seconds it is stopped.
            env: Its whole environment; None for that of this process.

        Raises:
            TrainingError: TG0408, `end` was called before it had ended.
            subprocess.TimeoutExpired: it took longer.
        """
        with self.running(lambda: start_group(command, output=output, env=env)) as child:
            code = child.process.wait(timeout_s)
        if code and child.stopped:
            raise TrainingError("the run was ended while this process ran", code="TG0408", hint="run again")
        return code

    def end(self) -> None:
        """Stop all processes and start no other, until `reopen`; returns when they are gone, after `GRACE_S` at most.

        Call it from any thread, as often as you like. A training saves a checkpoint first and its step raises TG0408.
        """
        with self._lock:
            self._ended = True
            running = list(self._running)
        _stop(running)

    def reopen(self) -> None:
        """Allow processes again: call it before the next run of the same process."""
        with self._lock:
            self._ended = False


THIS_PROCESS = Children()
"""Of all steps that are given no other."""


def start_group(
    command: list[str], *, output: IO[bytes], env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a command as the leader of a process group: a signal to the group reaches what it starts as well."""
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
    """Call first in a child process: it gets SIGKILL when its parent dies, even of kill -9.

    The kernel forgets a parent that died before this call, so the call looks whose child this process is now.

    Args:
        parent: Process id of whoever started it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)
