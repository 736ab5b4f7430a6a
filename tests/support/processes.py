"""Finds running processes and waits for conditions, for tests that kill some."""

import os
import time
from collections.abc import Callable
from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # ProcessLookupError if it ends while we read
        return False


def processes_of(words: str, *, root: int | None = None) -> list[int]:
    """`root`, by default this process, and its descendants, if their command line has these words.

    Other tests have clusters too.
    """
    root = root or os.getpid()
    parents: dict[int, int] = {}
    lines: dict[int, str] = {}
    for place in Path("/proc").iterdir():
        try:
            number = int(place.name)
            lines[number] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            # The name in parentheses may contain anything.
            parents[number] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue

    def is_below(number: int) -> bool:
        return number == root or (number in parents and is_below(parents[number]))

    return [number for number, line in lines.items() if words in line and is_below(number)]


def wait_for(condition: Callable[[], object], *, seconds: float = 900) -> None:
    """Poll until the condition holds; only a very busy machine needs long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.1)
