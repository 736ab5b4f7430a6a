"""A memory limit for code that a user wrote, set by the kernel."""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
