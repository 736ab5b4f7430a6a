"""Run one command in a fresh process and say what it cost: wall time, CPU time and peak memory of its whole tree.

CPU seconds are user + system: what the kernel says at the end (wait4), or what was seen of each process of the tree
every 20 ms where that is more, because workers of a fork server are nobody's children at the end. Memory is the sum
of the resident sizes over the tree, so pages that forked workers share count once for each; memory that is a file
which others map too (`/dev/shm`) is told apart. It knows nothing of engines. Called by `benchmarks/dedup.py`,
`benchmarks/curate.py` and `benchmarks/scale.py`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.02
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What one process tree used. `code` is None where the time limit ended it."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    code: int | None
    own_peak_mb: float
    """Without shared memory."""
    stdout: str
    stderr: str

    @property
    def complete(self) -> bool:
        return self.code == 0


def run_measured(
    command: Sequence[str],
    *,
    limit_s: float,
    environment: Mapping[str, str],
    folder: Path,
    scratch: Path,
    every_s: float = SAMPLE_S,
) -> Cost:
    """Run to the end, or kill the whole group after `limit_s`.

    Args:
        command: Program and arguments.
        limit_s: Wall seconds.
        environment: The whole environment of the process.
        folder: Its working directory.
        scratch: Folder for its output while it runs.
        every_s: Seconds between looks at the tree; each costs about as much as the tree has threads.
    """
    out, err = scratch / "stdout.txt", scratch / "stderr.txt"
    with out.open("w") as stdout, err.open("w") as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(
            list(command), env=dict(environment), cwd=folder, stdout=stdout, stderr=stderr, start_new_session=True
        )
        sampler = Sampler(process.pid, every_s=every_s)
        late = threading.Event()

        def end() -> None:
            late.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit_s, end)
        timer.start()
        sampler.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            timer.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers it left behind
        wall_s = time.perf_counter() - start
        sampler.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(
        wall_s=wall_s,
        cpu_s=max(usage.ru_utime + usage.ru_stime, sampler.cpu_s),
        peak_mb=sampler.peak_bytes / 1e6,
        code=None if late.is_set() else process.returncode,
        own_peak_mb=sampler.own_peak_bytes / 1e6,
        stdout=out.read_text(errors="replace"),
        stderr=err.read_text(errors="replace")[-4000:],
    )


class Sampler(threading.Thread):
    """Keeps the largest sum of resident sizes, and the last CPU time of each process seen."""

    def __init__(self, pid: int, *, every_s: float = SAMPLE_S) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._every_s = every_s
        self._over = threading.Event()
        self._ticks: dict[int, int] = {}
        self.peak_bytes = self.own_peak_bytes = 0

    @property
    def cpu_s(self) -> float:
        """Of all processes so far, those that have ended included."""
        return sum(self._ticks.values()) / _TICKS

    def run(self) -> None:
        while not self._over.wait(self._every_s):
            n_bytes = n_shared = 0
            for pid in _tree(self._pid):
                with contextlib.suppress(OSError, IndexError):
                    # After the name in brackets; see proc(5): utime and stime are fields 14 and 15, rss is 24.
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    self._ticks[pid] = int(fields[11]) + int(fields[12])
                    n_bytes += int(fields[21]) * _PAGE
                    n_shared += _told_bytes(pid, "RssShmem:")
            # The first process's peak between two samples too. wait4's ru_maxrss would count ours before the exec.
            self.peak_bytes = max(self.peak_bytes, n_bytes, _told_bytes(self._pid, "VmHWM:"))
            self.own_peak_bytes = max(self.own_peak_bytes, n_bytes - n_shared)

    def stop(self) -> None:
        self._over.set()
        self.join()


def _tree(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting.extend(map(int, (task / "children").read_text().split()))
    return found


def _told_bytes(pid: int, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0
