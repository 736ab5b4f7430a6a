"""Faults of system calls, by `strace -e inject`: also what DuckDB, SQLite, Arrow and torch write by themselves.

strace attaches to the run before it begins, and counts each thread's calls of its own: a number is the first thread's
that comes so far. It needs Linux, strace, and the right to trace (root, or a process that allows it, as ours does).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.torture.fork import Acks
from benchmarks.torture.trial import Fault, Trial

_PR_SET_PTRACER, _ANY = 0x59616D61, -1
_PATIENCE_S = 20.0
NUMBERS = {
    "write": {"curate": 300, "finetune": 200, "assess": 150, "release": 200},
    "fsync,fdatasync": {"curate": 60, "finetune": 40, "assess": 60, "release": 40},
    "openat": {"curate": 900, "finetune": 400, "assess": 300, "release": 500},
    "rename": {"curate": 24, "finetune": 20, "assess": 30, "release": 10},
}
"""Calls -> about how many one thread makes in the stage: numbers are drawn from there."""


def needs_strace() -> str:
    """Why nothing can be traced here."""
    if not sys.platform.startswith("linux"):
        return "Linux only"
    if shutil.which("strace") is None:
        return "strace is not installed (apt-get install strace)"
    asked = [sys.executable, "-c", "pass"]
    done = subprocess.run(["strace", "-f", "-o", os.devnull, *asked], capture_output=True, check=False)
    return "" if done.returncode == 0 else "strace may not trace here"


@contextmanager
def full_disk(trial: Trial) -> Iterator[str]:
    """From the nth write on there is no space."""
    with _inject(trial, "write", "ENOSPC", stays=True) as told:
        yield told


@contextmanager
def bad_sync(trial: Trial) -> Iterator[str]:
    """The nth fsync fails."""
    with _inject(trial, "fsync,fdatasync", "EIO", stays=False) as told:
        yield told


@contextmanager
def bad_call(trial: Trial) -> Iterator[str]:
    """The nth open, rename or write fails once."""
    calls = ("openat", "rename", "write")[trial.number % 3]
    with _inject(trial, calls, "EIO", stays=False) as told:
        yield told


@contextmanager
def killed_call(trial: Trial) -> Iterator[str]:
    """SIGKILL in the middle of the nth write or fsync of whatever library."""
    calls = ("write", "fsync,fdatasync")[trial.number % 2]
    with _inject(trial, calls, "", stays=False) as told:
        yield told


@contextmanager
def _inject(trial: Trial, calls: str, error: str, *, stays: bool) -> Iterator[str]:
    stage = trial.begin()
    number = trial.dice.randint(1, NUMBERS[calls][stage])
    child = trial.start(_until_traced)
    harm = f"error={error}" if error else "signal=KILL"
    command = [
        "strace", "-f", "-qq", "-o", str(trial.folder / "trace.txt"), "-p", str(child.pid), "-e", f"trace={calls}",
        "-e", f"inject={calls}:{harm}:when={number}{'+' if stays else ''}",
    ]  # fmt: skip
    tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ended = trial.heard(child.wait())
    tracer.wait(30)
    n_hit = (trial.folder / "trace.txt").read_text(errors="replace").count("INJECTED") if error else int(ended.code < 0)
    trial.missed = n_hit == 0
    yield f"{calls} {error or 'SIGKILL'} at {number}{'+' if stays else ''}: {n_hit} hit, {ended.error or ended.code}"


def _until_traced(_acks: Acks) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        with open("/proc/self/status") as stream:  # noqa: PTH123  # no fork's Path cache in a traced process
            if "TracerPid:\t0" not in stream.read():
                return
        time.sleep(0.01)
    raise RuntimeError("strace did not come")


TRACED = (
    Fault("ENOSPC on writes", "from the nth `write` on: no space", full_disk, 1, 40, needs_strace),
    Fault("EIO on syncs", "the nth `fsync` or `fdatasync` fails", bad_sync, 1, 30, needs_strace),
    Fault("EIO on a call", "the nth `openat`, `rename` or `write` fails", bad_call, 0, 45, needs_strace),
    Fault("kill in a call", "SIGKILL in the nth `write` or `fsync`", killed_call, 1, 40, needs_strace),
)
