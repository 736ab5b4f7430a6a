"""Faults around the run: a second run, held locks, servers that are down, a changing source, a clock that jumps, a lack
of memory, a power cut, and the command line as users start it, killed."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.measure import children
from benchmarks.torture.fork import PIPELINE, Acks, Child, Work, kill_at, when_read
from benchmarks.torture.homes import environment
from benchmarks.torture.kills import needs_mount
from benchmarks.torture.trial import Trial, fault
from flows.workspace.servers import running, users_homes

NOWHERE = "http://127.0.0.1:9"
"""A port that nothing listens on."""
LOCKED = 6
"""Exit code."""


@fault("two runs at once", "a second run starts while one is running", quick=1, full=20)
def two_runs(trial: Trial) -> Iterator[str]:
    """Start a second run while the first is running: one of them reports who holds the pipeline."""
    first = trial.homes.stages[trial.begin()]
    runs = [trial.start()]
    time.sleep(trial.rng.uniform(0, first.seconds / 2))
    runs.append(trial.start())
    codes = [trial.record(run.wait()).code for run in runs]
    trial.fired = LOCKED in codes
    if sorted(codes) not in ([0, 0], [0, LOCKED]):
        raise RuntimeError(f"exit codes {codes}")
    yield f"exit codes {codes}"


@fault("lock held, holder killed", "refused with the holder's pid; free once it is dead", quick=1, full=8)
def live_holder(trial: Trial) -> Iterator[str]:
    """Let another process hold the pipeline: the run is refused and names it; the lock ends with its holder."""
    trial.begin()
    holder = trial.start(work=_hold_pipeline(trial.home))
    _until(holder, "held")
    ended = trial.run()
    if ended.code != LOCKED or f"pid {holder.pid}" not in ended.output:
        raise RuntimeError(f"exit code {ended.code} instead of {LOCKED}, or the holder is not named")
    holder.kill()
    holder.wait()
    yield f"refused with {ended.error}, the holder was killed"


@fault("ledger held", "the run waits until its holder is killed", quick=0, full=8)
def busy_ledger(trial: Trial) -> Iterator[str]:
    """Let another process hold the ledger's transaction open for a while, then kill it: the run waits for it."""
    trial.begin(trial.rng.choice(("finetune", "assess", "release")))
    holder = trial.start(work=_hold_database(trial.home / "ledger.sqlite", "IMMEDIATE"))
    _until(holder, "held")
    run = trial.start()
    time.sleep(trial.rng.uniform(0.5, 2.0))
    holder.kill()
    holder.wait()
    ended = trial.record(run.wait())
    if ended.code:
        raise RuntimeError(f"exit code {ended.code} {ended.error}")
    yield "the ledger was busy for a while"


@fault("MLflow's file held", "the verdict is kept, `reconcile` updates MLflow", quick=0, full=3)
def busy_mlflow(trial: Trial) -> Iterator[str]:
    """Let another process hold MLflow's database during the release: the verdict is kept, MLflow updated later."""
    trial.begin("release")
    holder = trial.start(work=_hold_database(trial.home / "mlflow" / "mlflow.db", "EXCLUSIVE"))
    _until(holder, "held")
    ended = trial.run()
    holder.kill()
    holder.wait()
    if ended.code:
        raise RuntimeError(f"exit code {ended.code} {ended.error}")
    yield "MLflow's database was held"


@fault("MLflow down", "the verdict is kept, `reconcile` updates MLflow", quick=1, full=4)
def dead_mlflow(trial: Trial) -> Iterator[str]:
    trial.begin("release")
    ended = trial.run(MLFLOW_TRACKING_URI=NOWHERE)
    if ended.code or "sync pending" not in ended.output:
        raise RuntimeError(f"exit code {ended.code} {ended.error}, or no message")
    yield "promoted without MLflow"


@fault("Prefect down", "`tunegate run` works without it", quick=1, full=4)
def dead_prefect(trial: Trial) -> Iterator[str]:
    trial.begin("release")
    ended = trial.run(work=_command, PREFECT_API_URL=f"{NOWHERE}/api")
    if ended.code or "without Prefect" not in ended.output:
        raise RuntimeError(f"exit code {ended.code}, or no message")
    yield "promoted without Prefect"


def _command(_acks: Acks) -> int:
    from flows.cli.output import render
    from flows.cli.running import run_pipeline
    from flows.context.request import ANY_CASE

    return render(run_pipeline(PIPELINE, Path("pipelines.yaml"), ANY_CASE), as_json=True)


def _hold_pipeline(home: Path) -> Work:
    def work(acks: Acks) -> int:
        from flows.workspace.lock import pipeline_lock

        with pipeline_lock(home, PIPELINE, wait_s=0, run_id="other"):
            acks.write(kind="held")
            _wait_for_kill()
        return 0

    return work


def _hold_database(path: Path, how: str) -> Work:
    def work(acks: Acks) -> int:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(f"BEGIN {how}")
            acks.write(kind="held")
            _wait_for_kill()
        return 0

    return work


def _wait_for_kill() -> None:
    signal.alarm(100)  # in case the campaign itself is killed
    sys.stdout.flush()
    signal.pause()


def _until(child: Child, kind: str) -> None:
    while not any(ack["kind"] == kind for ack in child.acks()):
        if not child.is_alive():
            raise RuntimeError("the holder did not start")
        time.sleep(0.01)


# The machine

CGROUP = Path("/sys/fs/cgroup/memory")
IMAGE_MIB = 64
"""Plus three times the size of a finished home."""
NOWS = ("2020-01-01T00:00:00Z", "2026-03-29T01:59:59+01:00", "2026-10-25T02:30:00+01:00", "2038-01-19T03:14:08Z")
"""Long ago, before and during a change of daylight saving time, after the end of 32-bit time."""


def needs_cgroup() -> str:
    """Why memory cannot be limited here; empty if it can."""
    if os.geteuid() or not (CGROUP / "memory.limit_in_bytes").exists():
        return "needs root and the memory controller of cgroup v1"
    trial = CGROUP / _own_group().lstrip("/") / f"torture-{os.getpid()}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        return f"no group can be created: {error.strerror}"
    return ""


def needs_loop() -> str:
    """Why no image can be mounted here; empty if one can."""
    if why := needs_mount():
        return why
    if shutil.which("mkfs.ext4") is None:
        return "mkfs.ext4 is not installed"
    done = subprocess.run(["losetup", "-f"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "there is no loop device"


@fault("source changes", "truncated, overwritten or replaced while it is read", quick=1, full=24)
def moving_source(trial: Trial) -> Iterator[str]:
    """Truncate, overwrite or replace the file of tickets at its nth opening, then restore it.

    Not at the first: a run that has read nothing yet simply reads other tickets.
    """
    trial.begin("curate")
    tickets, whole = trial.place / "tickets.jsonl", (trial.place / "tickets.jsonl").read_bytes()
    other = whole.replace(b"billing", b"BILLING")
    way, number = ("cut off", "overwritten", "replaced")[trial.number % 3], trial.rng.randint(2, 4)

    def act() -> None:
        if way == "replaced":
            aside = tickets.with_suffix(".new")
            aside.write_bytes(other)
            aside.replace(tickets)
        else:
            tickets.write_bytes(whole[: len(whole) // 3] if way == "cut off" else other)

    ended = trial.run(when_read(tickets, number, act))
    trial.must_report = True
    if ended.code == 0 and tickets.read_bytes() != whole:
        raise RuntimeError("a run succeeded on tickets that changed while it read them")
    tickets.write_bytes(whole)
    yield f"{way} at opening {number}: {ended.error or ended.code}"


@fault("clock jumps", "back and forth between a killed run and the next", quick=1, full=20)
def stepping_clock(trial: Trial) -> Iterator[str]:
    """Change the clock before a run that is killed, and again before the next."""
    first, second = trial.rng.sample(NOWS, 2)
    number = trial.rng.randint(1, trial.homes.stages[trial.begin()].n_operations)
    trial.fired = trial.run(kill_at(trial.place, number), TUNEGATE_NOW=first).code < 0
    trial.environ["TUNEGATE_NOW"] = second
    yield f"clock at {first}, killed at operation {number}, then {second}"


@fault("out of memory", "the kernel kills for memory (cgroup)", quick=1, full=20, needs=needs_cgroup)
def out_of_memory(trial: Trial) -> Iterator[str]:
    """Give the run and its training so little memory that the kernel kills one of them."""
    trial.begin(trial.rng.choice(("curate", "finetune", "assess")))
    group = CGROUP / _own_group().lstrip("/") / f"torture-{os.getpid()}"
    group.mkdir()
    trial.stack.callback(_remove_group, group)
    n_bytes = trial.rng.randint(8, 80) << 20
    (group / "memory.limit_in_bytes").write_text(str(n_bytes))

    def before(_acks: Acks) -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    ended = trial.run(before)
    trial.fired = ended.code != 0
    yield f"{n_bytes >> 20} MiB: {ended.error or ended.code}"


@fault("power cut", "an ext4 image copied at a random moment, mounted again", quick=1, full=40, needs=needs_loop)
def power_cut(trial: Trial) -> Iterator[str]:
    """Put the home folder on its own disk image; at a random moment keep the image and lose all memory."""
    stage = trial.homes.stages[trial.begin()]
    disk, cut, aside = (trial.folder / name for name in ("disk.img", "cut.img", "aside"))
    subprocess.run(["truncate", "-s", f"{IMAGE_MIB + 3 * trial.homes.mib}M", str(disk)], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(disk)], check=True)
    trial.home.rename(aside)
    trial.home.mkdir(mode=0o700)
    _mount(trial, disk)
    shutil.copytree(aside, trial.home, dirs_exist_ok=True)
    os.sync()
    child, after = trial.start(), trial.rng.uniform(0, stage.seconds)
    time.sleep(after)
    trial.fired = child.is_alive()
    stopped = [child.pid, *children(child.pid)] if child.is_alive() else []
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    trial.acks += child.acks()  # everything acknowledged so far must survive the cut
    shutil.copyfile(disk, cut)  # writes that are still in memory are not in the file
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
    for _ in range(100):  # killed processes take a moment to end
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.05)
        else:
            return


# The command line: real processes with a real Prefect server; everything else here uses forks, ten times faster

TUNEGATE = str(Path(sys.executable).with_name("tunegate"))
LONGEST_S = 300.0
TYPICAL_S = 30.0
"""Duration of a toy run that starts a server, on two slow cores; kills happen within it."""
TARGETS = ("the command", "all its processes", "Prefect")


@fault("command killed", "`tunegate run`, all its processes, or its Prefect server", quick=1, full=12)
def killed_command(trial: Trial) -> Iterator[str]:
    """Kill `tunegate run` itself, all its processes, or its Prefect server after a random time."""
    trial.begin()
    environ = {**os.environ, **environment(trial.place), "OMP_NUM_THREADS": "1"}
    environ.pop("PREFECT_API_URL", None)
    target, after = TARGETS[trial.number % len(TARGETS)], trial.rng.uniform(0, TYPICAL_S)
    output = trial.folder / "command.txt"
    down = [TUNEGATE, "ops", "down", "--all"]
    trial.stack.callback(subprocess.run, down, cwd=trial.place, env=environ, capture_output=True, check=False)
    with output.open("w") as stream:
        command = subprocess.Popen(
            [TUNEGATE, "run", PIPELINE], cwd=trial.place, env=environ, stdout=stream, stderr=stream,
            start_new_session=True,
        )  # fmt: skip
    if target == "Prefect":
        _kill_prefect(trial, command, after)
    else:
        _wait(command, after)
        if command.poll() is None:
            (os.killpg if target == "all its processes" else os.kill)(command.pid, signal.SIGKILL)
        else:
            trial.fired = False
    code = command.wait(LONGEST_S)
    if target == "Prefect" and code:
        raise RuntimeError(f"without Prefect the run ended with {code}: {output.read_text()[-1500:]}")
    trial.stage = trial.stage or "whole"
    yield f"{target} killed after {after:.1f} s: {code}"


def _kill_prefect(trial: Trial, command: subprocess.Popen[bytes], after: float) -> None:
    while command.poll() is None:
        common = users_homes(trial.place.parent / "state" / "tunegate")
        server = next((each for each in running(*common) if each.kind == "prefect"), None)
        if server is not None:
            _wait(command, after / 3)
            os.kill(server.pid, signal.SIGKILL)
            return
        time.sleep(0.05)
    trial.fired = False


def _wait(command: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        command.wait(seconds)
    except subprocess.TimeoutExpired:
        return
