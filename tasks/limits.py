"""Memory and time limits for code that a user wrote: the kernel limits memory, a trace function limits time.

It knows nothing of what runs. Called by tasks/warehouse.py for SQL and by tasks/model/chat_codec.py for templates.
"""

import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

_limited = threading.Lock()
"""Held by the thread that has set the process's memory limit."""


def machine_memory() -> int:
    """This machine's memory, bytes."""
    return os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()


@contextmanager
def memory_limit(extra: int) -> Iterator[None]:
    """Let this process allocate `extra` more bytes; if another thread has set a limit, that one applies.

    Beyond the limit, code gets a MemoryError, or its library's error for a failed allocation.
    """
    if not _limited.acquire(blocking=False):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        wanted = pages * resource.getpagesize() + extra
        if soft == resource.RLIM_INFINITY or wanted < soft:
            resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    except (OSError, ValueError):  # not Linux, or not allowed
        pass
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        _limited.release()


@contextmanager
def python_deadline(seconds: float) -> Iterator[None]:
    """Limit this thread's CPU time; lines of the block's callees run slower meanwhile.

    A signal only reaches the main thread, and a thread cannot be ended from outside. It measures the thread's CPU time,
    since a harmless block takes longer in real time on a busy machine.

    Raises:
        TimeoutError: inside the block, at the first line of Python after the deadline.
    """
    end = time.thread_time() + seconds

    def look(_frame: FrameType, _event: str, _argument: Any) -> Any:
        if time.thread_time() > end:
            raise TimeoutError
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        yield
    finally:
        sys.settrace(before)
