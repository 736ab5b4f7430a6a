"""Faults of the run's own process: kills, failing operations and system calls, kernel limits.

`strace -e inject` hits system calls, including those of DuckDB, SQLite, Arrow and torch. strace attaches to the run
before it starts and counts calls per thread: a number applies to the first thread that gets that far. It needs Linux,
strace, and permission to trace (root, or a process that allows it, as ours does).
"""

import ctypes
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import children
from benchmarks.torture.fork import Acks, Before, Ended, fail_from, kill_at, limit
from benchmarks.torture.homes import MIB, used_bytes
from benchmarks.torture.trial import Trial, fault
from tasks.storage.failpoint import PLACES, VARIABLE

_FETCHING = "needs a service as source; tests/system/tasks/sources kills there"
_COPYING = "needs remote files; tests/system/tasks/sources kills there"
ELSEWHERE = {
    **{place: _FETCHING for place in PLACES if place.startswith("ingest.")},
    **{place: _COPYING for place in PLACES if place.startswith("copies.")},
    **{
        place: "only `tunegate data forget` gets there; tests/system/flows/cli/test_forget.py kills there"
        for place in PLACES
        if place.startswith("forget.")
    },
    "train.depot.put": "needs a cluster; tests/system/tasks/cluster/test_depot.py kills there",
    "train.rank.reduced": "needs several training processes; tests/system/tasks/train/test_distributed.py kills one",
}
"""Places that the campaign does not reach, with the reason."""
REACHED = tuple(place for place in PLACES if place not in ELSEWHERE)
_STAGE = {
    "ledger.tick": "curate", "snapshot": "curate", "train": "finetune", "answers": "assess", "ledger": "release",
    "mlflow": "release",
}  # fmt: skip
_OFTEN = {"train.checkpoint.written": 4, "train.checkpoint.renamed": 4}
"""How often its stage reaches a place, if more than once."""


@fault("kill at a failpoint", "SIGKILL at each declared place in turn", quick=len(REACHED), full=6 * len(REACHED))
def at_failpoint(trial: Trial) -> Iterator[str]:
    """Kill at the places in turn; for those of the store in a random stage, at one of its results."""
    place = REACHED[trial.number % len(REACHED)]
    stage = trial.begin(_STAGE.get(place) or _STAGE.get(place.partition(".")[0]) or "")
    often = trial.homes.stages[stage].n_made if place.startswith("store.") else _OFTEN.get(place, 1)
    aim = f"{place}:{trial.rng.randint(1, often)}"
    trial.tick = "person" if place == "ledger.tick" else None
    ended = trial.run(**{VARIABLE: aim})
    # A training that is killed at one checkpoint is retried in the same run, from another.
    if not ended.code and not place.startswith("train.checkpoint."):
        raise RuntimeError(f"{aim} was not reached")
    yield f"killed at {aim}"


@fault("kill at an operation", "SIGKILL at the nth file operation", quick=3, full=120)
def at_operation(trial: Trial) -> Iterator[str]:
    """Kill at a random file operation of a random stage."""
    number = _any_operation(trial)
    ended = trial.run(kill_at(trial.place, number))
    yield f"killed at operation {number}{_missed(trial, ended.code)}"


@fault("kill at a moment", "SIGKILL after a random time", quick=1, full=60)
def at_random(trial: Trial) -> Iterator[str]:
    stage = trial.homes.stages[trial.begin()]
    after = trial.rng.uniform(0, stage.seconds)
    child = trial.start()
    time.sleep(after)
    child.kill()
    ended = trial.record(child.wait())
    yield f"killed after {after:.2f} s{_missed(trial, ended.code)}"


@fault("kill three times", "SIGKILL of a run and of the next two", quick=0, full=20)
def again_and_again(trial: Trial) -> Iterator[str]:
    """Kill three runs in a row before one may finish."""
    numbers = []
    trial.begin()
    for _ in range(3):
        numbers.append(trial.rng.randint(1, trial.homes.stages[trial.stage].n_operations))
        trial.run(kill_at(trial.place, numbers[-1]))
    trial.fired = any(ended.code < 0 for ended in trial.ended)
    yield f"killed at operations {numbers}"


@fault("kill of the training", "SIGKILL of the training process alone", quick=1, full=10)
def of_training(trial: Trial) -> Iterator[str]:
    """Kill the training process only: the run retries from its last checkpoint."""
    trial.begin("finetune")
    child, worker = trial.start(), 0
    steps = trial.rng.randint(0, 14)
    while child.is_alive() and not worker:
        progress = next(trial.home.glob("scratch/train/*/progress.jsonl"), None)
        if progress is not None and progress.read_text().count("\n") >= steps:
            worker = next(iter(children(child.pid)), 0)
        time.sleep(0.01)
    if worker:
        os.kill(worker, signal.SIGKILL)
    ended = trial.record(child.wait())
    trial.fired = bool(worker)
    if worker and ended.code:
        raise RuntimeError("the run gave up after its training was killed once")
    yield f"training killed after {steps} lines of progress: {ended.error or ended.code}"


def _any_operation(trial: Trial) -> int:
    return trial.rng.randint(1, trial.homes.stages[trial.begin()].n_operations)


def _missed(trial: Trial, code: int) -> str:
    trial.missed = code == 0
    return " (the run had already ended)" if trial.missed else ""


# Failing operations, a small file system, kernel limits on files and memory


def needs_mount() -> str:
    """Why nothing can be mounted here; empty if it can."""
    if os.geteuid():
        return "mounting needs root"
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "mounting is not allowed here"


@fault("no space", "from the nth file operation on: ENOSPC", quick=1, full=80)
def full(trial: Trial) -> Iterator[str]:
    trial.must_report = True
    number = trial.rng.randint(1, trial.homes.stages[trial.begin()].n_operations)
    ended = _failing(trial, fail_from(trial.place, number))
    yield f"no space from operation {number} on: {ended.error or ended.code}"


@fault("I/O error", "the nth file operation fails: EIO", quick=1, full=80)
def failing(trial: Trial) -> Iterator[str]:
    trial.must_report = True
    number = trial.rng.randint(1, trial.homes.stages[trial.begin()].n_operations)
    ended = _failing(trial, fail_from(trial.place, number, error=errno.EIO, once=True))
    yield f"I/O error at operation {number}: {ended.error or ended.code}"


@fault("small disk", "home folder on a tmpfs that fills up", quick=1, full=30, needs=needs_mount)
def small_disk(trial: Trial) -> Iterator[str]:
    """Put the home folder on a file system with little free space; the next run has more."""
    trial.must_report = True
    trial.begin()
    aside, size = trial.folder / "aside", trial.rng.randint(1, 24)
    trial.home.rename(aside)
    trial.home.mkdir(mode=0o700)
    room = f"size={used_bytes(aside) + size * MIB // 8}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", room, "tmpfs", str(trial.home)], check=True)
    trial.stack.callback(subprocess.run, ["umount", "-l", str(trial.home)], check=False)
    shutil.copytree(aside, trial.home, dirs_exist_ok=True)
    ended = _note_limit(trial, trial.run())
    # Without free space SQLite cannot open a database, not even for reading.
    enough = 256 + 3 * trial.homes.mib
    subprocess.run(["mount", "-o", f"remount,size={enough}m", str(trial.home)], check=True)
    yield f"{size / 8:.1f} MiB left: {ended.error or ended.code}"


@fault("large files refused", "RLIMIT_FSIZE", quick=0, full=20)
def large_file(trial: Trial) -> Iterator[str]:
    """Limit the size of files."""
    trial.must_report = True
    trial.begin()
    n_bytes = int(2 ** trial.rng.uniform(9, 21))
    ended = _note_limit(trial, trial.run(limit(resource.RLIMIT_FSIZE, n_bytes)))
    yield f"files of at most {n_bytes} bytes: {ended.error or ended.code}"


@fault("few open files", "RLIMIT_NOFILE", quick=0, full=15)
def open_files(trial: Trial) -> Iterator[str]:
    trial.must_report = True
    trial.begin()
    n_files = len(list(Path("/proc/self/fd").iterdir())) + trial.rng.randint(2, 16)
    ended = _note_limit(trial, trial.run(limit(resource.RLIMIT_NOFILE, n_files)))
    yield f"{n_files} open files: {ended.error or ended.code}"


@fault("little memory", "RLIMIT_AS", quick=0, full=20)
def address_space(trial: Trial) -> Iterator[str]:
    """Allow little more memory than the process has at its start."""
    trial.begin()
    more = int(2 ** trial.rng.uniform(20, 28))
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    ended = _note_limit(trial, trial.run(limit(resource.RLIMIT_AS, now + more)))
    yield f"{more / MIB:.0f} MiB more than at the start: {ended.error or ended.code}"


def _failing(trial: Trial, before: Before) -> Ended:
    ended = trial.run(before)
    trial.fired = any(ack["kind"] == "failed" for ack in ended.acks)
    return ended


def _note_limit(trial: Trial, ended: Ended) -> Ended:
    """Record whether the limit ended the run; otherwise it may not have reached the limit."""
    trial.fired = ended.code != 0
    return ended


# System calls

_PR_SET_PTRACER, _ANY = 0x59616D61, -1
_PATIENCE_S = 20.0
NUMBERS = {
    "write": {"curate": 300, "finetune": 200, "assess": 150, "release": 200},
    "fsync,fdatasync": {"curate": 60, "finetune": 40, "assess": 60, "release": 40},
    "openat": {"curate": 900, "finetune": 400, "assess": 300, "release": 500},
    "rename": {"curate": 24, "finetune": 20, "assess": 30, "release": 10},
}
"""Calls -> approximate number per thread in each stage: random numbers are drawn up to it."""


def needs_strace() -> str:
    """Why nothing can be traced here; empty if it can."""
    if not sys.platform.startswith("linux"):
        return "Linux only"
    if shutil.which("strace") is None:
        return "strace is not installed (apt-get install strace)"
    command = [sys.executable, "-c", "pass"]
    done = subprocess.run(["strace", "-f", "-o", os.devnull, *command], capture_output=True, check=False)
    return "" if done.returncode == 0 else "strace may not trace here"


@fault("ENOSPC on writes", "from the nth `write` on: no space", quick=1, full=40, needs=needs_strace)
def full_disk(trial: Trial) -> Iterator[str]:
    yield from _inject(trial, "write", "ENOSPC", stays=True)


@fault("EIO on syncs", "the nth `fsync` or `fdatasync` fails", quick=1, full=30, needs=needs_strace)
def bad_sync(trial: Trial) -> Iterator[str]:
    yield from _inject(trial, "fsync,fdatasync", "EIO", stays=False)


@fault("EIO on a call", "the nth `openat`, `rename` or `write` fails", quick=0, full=45, needs=needs_strace)
def bad_call(trial: Trial) -> Iterator[str]:
    calls = ("openat", "rename", "write")[trial.number % 3]
    yield from _inject(trial, calls, "EIO", stays=False)


@fault("kill in a call", "SIGKILL in the nth `write` or `fsync`", quick=1, full=40, needs=needs_strace)
def killed_call(trial: Trial) -> Iterator[str]:
    """Send SIGKILL in the middle of the nth write or fsync of any library."""
    calls = ("write", "fsync,fdatasync")[trial.number % 2]
    yield from _inject(trial, calls, "", stays=False)


def _inject(trial: Trial, calls: str, error: str, *, stays: bool) -> Iterator[str]:
    stage = trial.begin()
    number = trial.rng.randint(1, NUMBERS[calls][stage])
    child = trial.start(_until_traced)
    harm = f"error={error}" if error else "signal=KILL"
    command = [
        "strace", "-f", "-qq", "-o", str(trial.folder / "trace.txt"), "-p", str(child.pid), "-e", f"trace={calls}",
        "-e", f"inject={calls}:{harm}:when={number}{'+' if stays else ''}",
    ]  # fmt: skip
    tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ended = trial.record(child.wait())
    tracer.wait(30)
    n_hit = (trial.folder / "trace.txt").read_text(errors="replace").count("INJECTED") if error else int(ended.code < 0)
    trial.missed = n_hit == 0
    yield f"{calls} {error or 'SIGKILL'} at {number}{'+' if stays else ''}: {n_hit} hit, {ended.error or ended.code}"


def _until_traced(_acks: Acks) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        with open("/proc/self/status") as stream:  # noqa: PTH123  # plain open: pathlib would make more calls that count
            if "TracerPid:\t0" not in stream.read():
                return
        time.sleep(0.01)
    raise RuntimeError("strace did not attach")
