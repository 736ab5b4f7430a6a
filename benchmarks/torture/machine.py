"""The machine: a source that moves while it is read, a clock that steps, memory that ends, power that fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.torture.disk import needs_mount
from benchmarks.torture.fork import Acks
from benchmarks.torture.injected import kill_at, when_read
from benchmarks.torture.kills import children
from benchmarks.torture.trial import Fault, Trial

CGROUP = Path("/sys/fs/cgroup/memory")
IMAGE_MIB = 64
"""And three times what a finished home takes."""
NOWS = ("2020-01-01T00:00:00Z", "2026-03-29T01:59:59+01:00", "2026-10-25T02:30:00+01:00", "2038-01-19T03:14:08Z")
"""Long ago, before and in a change of daylight saving time, behind the end of 32 bits."""


@contextmanager
def moving_source(trial: Trial) -> Iterator[str]:
    """The file of tickets is cut off, overwritten or replaced at its nth opening, then put back."""
    trial.begin("curate")
    tickets, whole = trial.place / "tickets.jsonl", (trial.place / "tickets.jsonl").read_bytes()
    other = whole.replace(b"billing", b"BILLING")
    way, number = ("cut off", "overwritten", "replaced")[trial.number % 3], trial.dice.randint(1, 4)

    def act() -> None:
        if way == "replaced":
            aside = tickets.with_suffix(".new")
            aside.write_bytes(other)
            aside.replace(tickets)
        else:
            tickets.write_bytes(whole[: len(whole) // 3] if way == "cut off" else other)

    ended = trial.run(when_read(tickets, number, act))
    trial.has_to_say = True
    # At the first opening the run simply finds other tickets: whatever came of them is not what the next run finds.
    if ended.code == 0 and number > 1 and tickets.read_bytes() != whole:
        raise RuntimeError("a run ended well on tickets that were exchanged while it read them")
    if number == 1 and ended.code == 0:
        shutil.rmtree(trial.place)
        trial.acks.clear()
        trial.begin("curate")
    tickets.write_bytes(whole)
    yield f"{way} at opening {number}: {ended.error or ended.code}"


@contextmanager
def stepping_clock(trial: Trial) -> Iterator[str]:
    """The clock steps before a run that is killed, and back before the next."""
    first, second = trial.dice.sample(NOWS, 2)
    number = trial.dice.randint(1, trial.homes.stages[trial.begin()].n_operations)
    trial.fired = trial.run(kill_at(trial.place, number), TUNEGATE_NOW=first).code < 0
    trial.environ["TUNEGATE_NOW"] = second
    yield f"clock at {first}, killed at operation {number}, then {second}"


@contextmanager
def out_of_memory(trial: Trial) -> Iterator[str]:
    """The run and its training get so little memory that the kernel kills one of them."""
    trial.begin(trial.dice.choice(("curate", "finetune", "assess")))
    group = CGROUP / _own_group().lstrip("/") / f"torture-{os.getpid()}"
    group.mkdir()
    trial.stack.callback(_remove_group, group)
    n_bytes = trial.dice.randint(8, 80) << 20
    (group / "memory.limit_in_bytes").write_text(str(n_bytes))

    def before(_acks: Acks) -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    ended = trial.run(before)
    trial.fired = ended.code != 0
    yield f"{n_bytes >> 20} MiB: {ended.error or ended.code}"


@contextmanager
def power_cut(trial: Trial) -> Iterator[str]:
    """The home folder lies on a disk of its own; at a random moment the disk is as it is, and all memory is gone."""
    stage = trial.homes.stages[trial.begin()]
    disk, cut, aside = (trial.folder / name for name in ("disk.img", "cut.img", "aside"))
    subprocess.run(["truncate", "-s", f"{IMAGE_MIB + 3 * trial.homes.mib}M", str(disk)], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(disk)], check=True)
    trial.home.rename(aside)
    trial.home.mkdir(mode=0o700)
    _mount(trial, disk)
    shutil.copytree(aside, trial.home, dirs_exist_ok=True)
    os.sync()
    child, after = trial.start(), trial.dice.uniform(0, stage.seconds)
    time.sleep(after)
    trial.fired = child.is_alive()
    stopped = [child.pid, *children(child.pid)] if child.is_alive() else []
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    trial.acks += child.acks()  # what was told until now has to be there after the cut
    shutil.copyfile(disk, cut)  # what has not been written out yet is not in the file
    for pid in stopped:
        os.kill(pid, signal.SIGKILL)
    child.wait()
    subprocess.run(["umount", "-l", str(trial.home)], check=True)
    _mount(trial, cut)
    yield f"power cut after {after:.2f} s"


def _mount(trial: Trial, image: Path) -> None:
    subprocess.run(["mount", "-o", "loop", str(image), str(trial.home)], check=True)
    trial.stack.callback(subprocess.run, ["umount", "-l", str(trial.home)], check=False, stderr=subprocess.DEVNULL)


def _own_group() -> str:
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return path
    return "/"


def _remove_group(group: Path) -> None:
    for _ in range(100):  # the killed ones take a moment to go
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.05)
        else:
            return


def needs_cgroup() -> str:
    """Why no memory can be limited here."""
    if os.geteuid() or not (CGROUP / "memory.limit_in_bytes").exists():
        return "needs root and the memory controller of cgroup v1"
    trial = CGROUP / _own_group().lstrip("/") / f"torture-{os.getpid()}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        return f"no group can be made: {error.strerror}"
    return ""


def needs_loop() -> str:
    """Why no image can be mounted here."""
    if why := needs_mount():
        return why
    if shutil.which("mkfs.ext4") is None:
        return "mkfs.ext4 is not installed"
    done = subprocess.run(["losetup", "-f"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "there is no loop device"


MACHINE = (
    Fault("source moves", "cut off, overwritten or replaced while it is read", moving_source, 1, 24),
    Fault("clock steps", "back and forth between a killed run and the next", stepping_clock, 1, 20),
    Fault("out of memory", "the kernel kills for memory (cgroup)", out_of_memory, 1, 20, needs_cgroup),
    Fault("power cut", "an ext4 image as it is at a random moment, mounted anew", power_cut, 1, 40, needs_loop),
)
