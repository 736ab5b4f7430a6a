"""Run one command in a fresh process and say what it cost: wall time, CPU time and peak memory of its whole tree.

CPU seconds are user + system of the process and of all its descendants that ended (wait4). Memory is the sum of the
resident sizes over the tree, sampled every 20 ms, so pages that forked workers share count once for each. It knows
nothing of engines. Called by `benchmarks/dedup.py` and `benchmarks/curate.py`.
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


@dataclass(frozen=True)
class Cost:
    """What one process tree used. `code` is None where the time limit ended it."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    code: int | None
    stdout: str
    stderr: str

    @property
    def complete(self) -> bool:
        return self.code == 0


def run_measured(
    command: Sequence[str], *, limit_s: float, environment: Mapping[str, str], folder: Path, scratch: Path
) -> Cost:
    """Run to the end, or kill the whole group after `limit_s`.

    Args:
        command: Program and arguments.
        limit_s: Wall seconds.
        environment: The whole environment of the process.
        folder: Its working directory.
        scratch: Folder for its output while it runs.
    """
    out, err = scratch / "stdout.txt", scratch / "stderr.txt"
    with out.open("w") as stdout, err.open("w") as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(
            list(command), env=dict(environment), cwd=folder, stdout=stdout, stderr=stderr, start_new_session=True
        )
        sampler = _Sampler(process.pid)
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
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mb=max(sampler.peak_bytes / 1e6, usage.ru_maxrss * 1024 / 1e6),
        code=None if late.is_set() else process.returncode,
        stdout=out.read_text(errors="replace"),
        stderr=err.read_text(errors="replace")[-4000:],
    )


class _Sampler(threading.Thread):
    """Keeps the largest sum of resident sizes seen."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._over = threading.Event()
        self.peak_bytes = 0

    def run(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, sum(map(_resident_bytes, _tree(self._pid))))

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


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
