"""Isolates tests from each other within a process: threads, environment, folder, umask, log records, cached tables."""

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas import secrets

KEPT = re.compile(r"asyncio_\d+|kernel_\d+|tqdm_monitor|QueueFeederThread|ThreadPoolExecutor-.*")
"""Threads that live as long as the process; they wait for work and use no global random numbers."""
OWN = re.compile(r"PYTEST_|COV_")
"""Variables that pytest itself changes."""
GRACE_S = 30.0


@contextmanager
def isolated(*, may_leave_threads: bool = False) -> Iterator[None]:
    """Restore what a test changes in its process; a thread left running is an error.

    A thread matters even if it does no harm: Hypothesis, for one, rejects an example during which any thread used the
    global random numbers.
    """
    threads = set(threading.enumerate())
    environ, folder = _environ(), Path.cwd()
    records, sigterm = logging.getLogRecordFactory(), signal.getsignal(signal.SIGTERM)
    known, pattern = dict(secrets._known), secrets._pattern  # a process cannot forget a secret otherwise
    umask = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(umask)
        secrets._known.clear()
        secrets._known.update(known)
        secrets._pattern = pattern
        logging.setLogRecordFactory(records)
        signal.signal(signal.SIGTERM, sigterm)
        changed = {name for name, _ in _environ().items() ^ environ.items()}
        for name in changed:
            os.environ.pop(name, None)
        os.environ.update({name: environ[name] for name in changed & environ.keys()})
        os.chdir(folder)
    if not may_leave_threads:
        assert not (left := _left(threads)), f"the test left threads running: {left}"


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not OWN.match(name)}


def _left(before: set[threading.Thread]) -> list[str]:
    """Names of new threads that do not end within the grace period."""
    deadline = time.monotonic() + GRACE_S
    while True:
        left = [
            thread.name for thread in threading.enumerate() if thread not in before and not KEPT.fullmatch(thread.name)
        ]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)
