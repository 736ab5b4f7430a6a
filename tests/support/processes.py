"""Whether a process is still there, for tests that kill some."""

from __future__ import annotations

from pathlib import Path


def is_running(pid: int) -> bool:
    """Not gone, and no zombie that somebody has yet to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # the second one when it ends while it is read
        return False
