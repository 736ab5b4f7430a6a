"""Disks and limits: operations that fail, a small file system, files and memory that the kernel does not give."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.torture.fork import Ended
from benchmarks.torture.homes import MIB, used_bytes
from benchmarks.torture.injected import Before, fail_from, limit
from benchmarks.torture.trial import Fault, Trial


@contextmanager
def full(trial: Trial) -> Iterator[str]:
    """From the nth file operation on there is no space."""
    trial.has_to_say = True
    number = trial.dice.randint(1, trial.homes.stages[trial.begin()].n_operations)
    ended = _failing(trial, fail_from(trial.place, number))
    yield f"no space from operation {number} on: {ended.error or ended.code}"


@contextmanager
def failing(trial: Trial) -> Iterator[str]:
    """The nth file operation fails, later ones do not."""
    trial.has_to_say = True
    number = trial.dice.randint(1, trial.homes.stages[trial.begin()].n_operations)
    ended = _failing(trial, fail_from(trial.place, number, error=errno.EIO, once=True))
    yield f"I/O error at operation {number}: {ended.error or ended.code}"


@contextmanager
def small_disk(trial: Trial) -> Iterator[str]:
    """The home folder lies on a file system that is a little larger than it is now; the next run has a larger one."""
    trial.has_to_say = True
    trial.begin()
    aside, size = trial.folder / "aside", trial.dice.randint(1, 24)
    trial.home.rename(aside)
    trial.home.mkdir(mode=0o700)
    room = f"size={used_bytes(aside) + size * MIB // 8}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", room, "tmpfs", str(trial.home)], check=True)
    trial.stack.callback(subprocess.run, ["umount", "-l", str(trial.home)], check=False)
    shutil.copytree(aside, trial.home, dirs_exist_ok=True)
    ended = _felt(trial, trial.run())
    # Without any room SQLite opens nothing, not even to read.
    enough = 256 + 3 * trial.homes.mib
    subprocess.run(["mount", "-o", f"remount,size={enough}m", str(trial.home)], check=True)
    yield f"{size / 8:.1f} MiB left: {ended.error or ended.code}"


@contextmanager
def large_file(trial: Trial) -> Iterator[str]:
    """No file may grow beyond so many bytes."""
    trial.has_to_say = True
    trial.begin()
    n_bytes = int(2 ** trial.dice.uniform(9, 21))
    ended = _felt(trial, trial.run(limit(resource.RLIMIT_FSIZE, n_bytes)))
    yield f"files of at most {n_bytes} bytes: {ended.error or ended.code}"


@contextmanager
def open_files(trial: Trial) -> Iterator[str]:
    """So few files may be open at a time."""
    trial.has_to_say = True
    trial.begin()
    n_files = len(list(Path("/proc/self/fd").iterdir())) + trial.dice.randint(2, 16)
    ended = _felt(trial, trial.run(limit(resource.RLIMIT_NOFILE, n_files)))
    yield f"{n_files} open files: {ended.error or ended.code}"


@contextmanager
def address_space(trial: Trial) -> Iterator[str]:
    """So little more memory than the process has when it begins."""
    trial.begin()
    more = int(2 ** trial.dice.uniform(20, 28))
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    ended = _felt(trial, trial.run(limit(resource.RLIMIT_AS, now + more)))
    yield f"{more / MIB:.0f} MiB more than at the start: {ended.error or ended.code}"


def _failing(trial: Trial, before: Before) -> Ended:
    ended = trial.run(before)
    trial.fired = any(ack["kind"] == "failed" for ack in ended.acks)
    return ended


def _felt(trial: Trial, ended: Ended) -> Ended:
    """A run that a limit did not end may not have come to it."""
    trial.fired = ended.code != 0
    return ended


def needs_mount() -> str:
    """Why nothing can be mounted here."""
    if os.geteuid():
        return "mounting needs root"
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "mounting is not allowed here"


DISKS = (
    Fault("no space", "from the nth file operation on: ENOSPC", full, 1, 80),
    Fault("I/O error", "the nth file operation fails: EIO", failing, 1, 80),
    Fault("small disk", "home folder on a tmpfs that fills up", small_disk, 1, 30, needs_mount),
    Fault("large files refused", "RLIMIT_FSIZE", large_file, 0, 20),
    Fault("few open files", "RLIMIT_NOFILE", open_files, 0, 15),
    Fault("little memory", "RLIMIT_AS", address_space, 0, 20),
)
