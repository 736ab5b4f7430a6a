"""Faults inside the run's own process: at its nth file operation it is killed, or the operation fails.

An audit hook sees every operation of Python code on a file before it happens. Counted are those that change something
below the folder of the try; the run and the training process that it forks share one count, so the number names the
same place in every run. What native libraries write is for `traced.py`. Each function returns what
`fork.start(before=...)` calls in the child.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.torture.fork import Acks

Before = Callable[[Acks], None]
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate", "sqlite3.connect")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def count_operations(place: Path) -> Before:
    """Acknowledge each operation, as `{"kind": "operations", "n": 1}`."""
    return _at_each(place, lambda acks, _number: acks.write(kind="operations", n=1))


def kill_at(place: Path, number: int) -> Before:
    """SIGKILL for whoever does the operation of this number, before it happens."""

    def act(_acks: Acks, reached: int) -> None:
        if reached == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return _at_each(place, act)


def fail_from(place: Path, number: int, *, error: int = errno.ENOSPC, once: bool = False) -> Before:
    """This operation and all later ones fail, as on a full disk; `once`: this one alone, as on a bad sector."""

    def act(acks: Acks, reached: int) -> None:
        if reached == number or (reached > number and not once):
            acks.write(kind="failed", n=reached)
            raise OSError(error, os.strerror(error))

    return _at_each(place, act)


def limit(what: int, value: int) -> Before:
    """A limit of the kernel for the run and its training process."""

    def before(_acks: Acks) -> None:
        resource.setrlimit(what, (value, resource.getrlimit(what)[1]))

    return before


def when_read(path: Path, number: int, act: Callable[[], None]) -> Before:
    """Do something to the file when it is opened for the nth time, just before it is."""

    def before(_acks: Acks) -> None:
        seen, busy = 0, False

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen, busy
            if event != "open" or busy or not _is_below(arguments[0], str(path)):
                return
            seen += 1
            if seen == number:
                busy = True
                act()
                busy = False

        sys.addaudithook(hook)

    return before


def _at_each(place: Path, act: Callable[[Acks, int], None]) -> Before:
    def before(acks: Acks) -> None:
        count, below = mmap.mmap(-1, 8), str(place)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if _changes(event, arguments) and _is_below(arguments[0], below):
                reached = int.from_bytes(count[:], "little") + 1
                count[:] = reached.to_bytes(8, "little")
                act(acks, reached)

        sys.addaudithook(hook)

    return before


def _changes(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        return isinstance(arguments[2], int) and bool(arguments[2] & _WRITES)
    return event in CHANGES


def _is_below(path: Any, folder: str) -> bool:
    return isinstance(path, str | os.PathLike) and str(os.fspath(path)).startswith(folder)
