"""Bounds around what somebody else wrote: memory by the kernel, time by counting on the code that runs.

It knows nothing of what runs. Called by tasks/warehouse.py for SQL and by tasks/model/chat_codec.py for templates.
"""

from __future__ import annotations

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
"""Held by the thread that has set the process's limit of memory."""


def machine_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()


@contextmanager
def memory_limit(extra: int) -> Iterator[None]:
    """Let this process have that many bytes more; where a thread has set such a limit already, its limit holds.

    What asks for more gets a MemoryError, or what its library makes of a refused allocation.
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
    except (OSError, ValueError):  # no Linux, or not allowed
        pass
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        _limited.release()


@contextmanager
def python_deadline(seconds: float) -> Iterator[None]:
    """Let this thread use the processor for so many seconds; lines of the block's callees are slower meanwhile.

    A signal would end the main thread alone, and a thread cannot be ended from outside. The clock is the thread's own:
    on a busy machine a harmless block takes longer by the wall.

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
