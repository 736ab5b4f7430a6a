"""Which processes are there, for tests that kill some."""

from __future__ import annotations

import os
from pathlib import Path


def is_running(pid: int) -> bool:
    """Not gone, and no zombie that is not reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # the second one when it ends while it is read
        return False


def processes_of(words: str) -> list[int]:
    """Processes below this one (other tests have clusters too) whose command line has these words."""
    parents: dict[int, int] = {}
    lines: dict[int, str] = {}
    for place in Path("/proc").iterdir():
        try:
            number = int(place.name)
            lines[number] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            # The name in parentheses may hold anything.
            parents[number] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue

    def is_below(number: int) -> bool:
        return number == os.getpid() or (number in parents and is_below(parents[number]))

    return [number for number, line in lines.items() if words in line and is_below(number)]
