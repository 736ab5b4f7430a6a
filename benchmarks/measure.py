"""Shared by all benchmarks: settings and folders, peers' environments, the cost of a process, the report.

A benchmark starts with `Bench.begin`, calls `run_measured` for each run in a new process, and ends with `Bench.finish`,
which prints the tables and one line of JSON, and with RECORD=1 writes a page in `benchmarks/results/`. Knows nothing of
what is measured. Linux only: a process's cost is read from `/proc`.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import records

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "benchmarks" / "results"
PEERS = PROJECT / "benchmarks" / "peers"
ENGINES = PROJECT / "benchmarks" / "engines"
PYTHONS = {"text-dedup": "3.12"}
"""Peers that need another Python than `DEFAULT_PYTHON`."""
DEFAULT_PYTHON = "3.11"
SAMPLE_S = 0.02
STARVED = 5.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
T = TypeVar("T")


# Settings, folders, and the report


@dataclass(frozen=True)
class Bench:
    """One invocation of one benchmark."""

    name: str
    """Name of its Makefile target, without `bench-`."""
    quick: bool
    """QUICK=1: finish within three minutes."""
    record: bool
    """RECORD=1: also write the results page."""
    home: Path
    machine: dict[str, str]

    @classmethod
    def begin(cls, name: str, *libraries: str) -> Bench:
        """Read the environment and describe the machine, with the versions of these libraries."""
        if not Path("/proc/self/stat").exists():
            sys.exit("the benchmarks read /proc: they need Linux")
        return cls(name, flag("QUICK"), flag("RECORD"), bench_home(), describe_machine(*libraries))

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder, removed afterwards."""
        with tempfile.TemporaryDirectory(dir=self.home / "scratch") as folder:
            yield Path(folder)

    def finish(self, title: str, body: str, figures: Mapping[str, Any], *, page: str = "", head: str = "") -> None:
        """Print the tables and the line of JSON; with RECORD=1 write the page too.

        Args:
            title: Heading of the page.
            body: Tables as Markdown.
            figures: The line of JSON, to which the machine is added.
            page: File name in `benchmarks/results/` without `.md`; default: the benchmark's name.
            head: Text of the page before its tables, in addition to command and machine.
        """
        machine = self.machine | {"load": f"{self.machine['load']} at the start, {load()} at the end"}
        line = json.dumps({**figures, "machine": machine}, default=str)
        print(f"\n{body}\n", flush=True)
        if self.record:
            names = ("ONLY", "QUICK", "SCALE", "SIZE", "SIZES", "TICKETS", "TRIAL")
            settings = "".join(f"{name}={os.environ[name]} " for name in names if os.environ.get(name))
            target = "torture" if self.name == "torture" else f"bench-{self.name}"
            path = RESULTS / f"{page or self.name}.md"
            if record := records.declared().get(path.stem):
                machine["code"] = records.fingerprint(record.code)
            parts = [
                f"# {title}",
                f"Written by `{settings}RECORD=1 make {target}`; `benchmarks/README.md` explains the figures.",
                "\n".join(f"- {name}: {value}" for name, value in machine.items()),
                *([head] if head else []),
                body,
                f"```json\n{line}\n```",
            ]
            path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
            print(f"wrote {path.relative_to(PROJECT)}")
        print(line, flush=True)


def flag(name: str) -> bool:
    """Whether the variable is set to a non-empty value."""
    return bool(os.environ.get(name))


def bench_home() -> Path:
    """The folder BENCH_HOME (default `.bench/`) for corpora, answers, environments and scratch files."""
    folder = Path(os.environ.get("BENCH_HOME") or PROJECT / ".bench").resolve()
    for part in ("corpora", "env", "scratch"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return folder


def describe_machine(*libraries: str) -> dict[str, str]:
    """Processor, memory, system, versions, time, commit and load, without which figures mean nothing."""
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{processor}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "libraries": ", ".join(map(version_of, libraries or ("duckdb", "numba", "numpy", "pyarrow"))),
        "time": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": records.commit(),
        "load": load(),
    }


def version_of(distribution: str) -> str:
    """Name and version of a distribution, or only its name if it is not installed."""
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return distribution


def load() -> str:
    """Load averages of 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def report(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as Markdown; short rows are padded, numbers are not reformatted.

    >>> print(table(["engine", "s"], [["ours", 1.5], ["failed"]]))
    | engine | s |
    |---|---|
    | ours | 1.5 |
    | failed |  |
    """
    lines = [list(map(str, names)), *([*map(str, row), *[""] * (len(names) - len(row))] for row in rows)]
    text = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([text[0], "|" + "---|" * len(names), *text[1:]])


def rounded(value: float, digits: int = 4) -> float:
    """Round to this many significant digits."""
    return float(f"{value:.{digits}g}")


def rotated(items: Sequence[T], number: int) -> list[T]:
    """The items in the order of round `number`: each round starts with another, so a slow minute affects all.

    >>> rotated("abc", 1)
    ['b', 'c', 'a']
    """
    start = number % len(items)
    return [*items[start:], *items[:start]]


# Environments of the peers


class MissingError(Exception):
    """A peer's environment cannot be created here; the message says why."""


def interpreters(environments: set[str], home: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Environment -> interpreter, and environment -> reason for none. `project` is this interpreter."""
    pythons, missing = {"project": Path(sys.executable)}, {}
    for name in sorted(environments - {"project"}):
        try:
            pythons[name] = peer_python(name, home)
        except MissingError as error:
            missing[name] = f"not available: {error}"
            report(f"{name}: {missing[name]}")
    return pythons, missing


def peer_python(name: str, home: Path) -> Path:
    """The interpreter of a peer's environment, which is built if it is missing or its list has changed.

    Raises:
        MissingError: there is no uv, no such Python, or the package index lacks the pinned versions.
    """
    pins, folder = PEERS / f"{name}.txt", home / "env" / name
    python, built = folder / "bin" / "python", folder / "requirements.txt"
    if python.exists() and built.exists() and built.read_text() == pins.read_text():
        return python
    installed = Path(sys.executable).parent / "uv"
    uv = str(installed) if installed.exists() else shutil.which("uv")
    if uv is None:
        raise MissingError("uv is not installed (make install)")
    if not python.exists():
        _run_uv([uv, "venv", "--quiet", "--python", find_python(PYTHONS.get(name, DEFAULT_PYTHON)), str(folder)])
    _run_uv([uv, "pip", "sync", "--quiet", "--compile-bytecode", "--python", str(python), str(pins)])
    built.write_text(pins.read_text())
    return python


def find_python(wanted: str) -> str:
    """Find an interpreter of this minor version: our own, one on PATH, or one of pyenv's.

    Raises:
        MissingError: there is none.
    """
    if f"{sys.version_info.major}.{sys.version_info.minor}" == wanted:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for found in (shutil.which(f"python{wanted}"), *map(str, pyenv.glob(f"{wanted}.*/bin/python"))):
        # A shim on PATH may belong to a version that is not selected, so try each.
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    raise MissingError(f"there is no Python {wanted} on this machine")


def pinned(name: str) -> dict[str, str]:
    """Package -> version, from a peer's list."""
    return dict(line.split("==") for line in (PEERS / f"{name}.txt").read_text().split())


def _run_uv(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingError(done.stderr.strip().splitlines()[0] if done.stderr.strip() else "uv failed")


# One process, measured


@dataclass(frozen=True)
class Cost:
    """The cost of one process tree. `code` is None if the time limit ended it."""

    wall_s: float
    cpu_s: float
    """User and system seconds."""
    peak_mb: float
    code: int | None
    own_peak_mb: float
    """Peak without shared memory."""
    stdout: str
    stderr: str
    limit_s: float = 0.0

    @property
    def complete(self) -> bool:
        return self.code == 0

    @property
    def failure(self) -> str:
        """Why there is no answer; empty if there is one."""
        if self.complete:
            return ""
        if self.code is None:
            return f"over {self.limit_s:.0f} s"
        lines = self.stderr.strip().splitlines()
        return f"failed ({self.code}): {lines[-1][:160] if lines else 'no output'}"


def isolated(scratch: Path, *, own: bool, **more: str) -> dict[str, str]:
    """A process's whole environment: minimal, offline, and with `own` our modules."""
    names = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")
    return {
        **{name: os.environ[name] for name in names if name in os.environ},
        "TMPDIR": str(scratch),
        "PYTHONHASHSEED": "0",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        **({"PYTHONPATH": str(PROJECT)} if own else {}),
        **more,
    }


def run_measured(
    command: Sequence[str | Path],
    *,
    limit_s: float,
    environment: Mapping[str, str],
    folder: Path,
    scratch: Path,
    every_s: float = SAMPLE_S,
    threads: int = 1,
) -> Cost:
    """Run a command to its end, or kill its process group after `limit_s`; on a busy machine later.

    CPU seconds come from the kernel at the end (wait4), or from the samples of each process if these are more, because
    workers of a fork server are not children of the process when it ends. Memory is the sum of the resident sizes over
    the tree, so pages that forked workers share count once per worker; `own_peak_mb` leaves out files that others map
    too (`/dev/shm`).

    Args:
        command: Program and arguments.
        limit_s: Wall seconds; a run that got less CPU time than it would have had alone continues until each of its
            threads has had about that much, for at most `STARVED` times as long.
        environment: The whole environment of the process.
        folder: Its working directory.
        scratch: Folder for its output while it runs.
        every_s: Seconds between samples; the cost of one grows with the number of threads in the tree.
        threads: Number of processors that it keeps busy.
    """
    out, err = scratch / "stdout.txt", scratch / "stderr.txt"
    with out.open("w") as stdout, err.open("w") as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)), env=dict(environment), cwd=folder, stdout=stdout, stderr=stderr,
            start_new_session=True,
        )  # fmt: skip
        sampler = Sampler(process.pid, every_s=every_s)
        late, over = threading.Event(), threading.Event()

        def end_when_late() -> None:
            while not over.wait(0.2):
                wall_s = time.perf_counter() - start
                starved = sampler.cpu_s < 0.9 * limit_s * threads and wall_s < STARVED * limit_s
                if wall_s > limit_s and not starved:
                    late.set()
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    return

        sampler.start()
        threading.Thread(target=end_when_late, daemon=True).start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            over.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # remaining workers
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
        limit_s=limit_s,
    )


class Sampler(threading.Thread):
    """Records the largest sum of resident sizes, and the last CPU time of each process seen."""

    def __init__(self, pid: int, *, every_s: float = SAMPLE_S) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._every_s = every_s
        self._over = threading.Event()
        self._ticks: dict[int, int] = {}
        self.peak_bytes = self.own_peak_bytes = 0

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes so far, including those that have ended."""
        return sum(self._ticks.values()) / _TICKS

    def run(self) -> None:
        while not self._over.wait(self._every_s):
            n_bytes = n_shared = 0
            for pid in _tree(self._pid):
                with contextlib.suppress(OSError, IndexError):
                    # Fields after the name in brackets, see proc(5): utime and stime are 14 and 15, rss is 24.
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    self._ticks[pid] = int(fields[11]) + int(fields[12])
                    n_bytes += int(fields[21]) * _PAGE
                    n_shared += _status_bytes(pid, "RssShmem:")
            # VmHWM also covers the first process between samples; wait4's ru_maxrss would include ours before the exec.
            self.peak_bytes = max(self.peak_bytes, n_bytes, _status_bytes(self._pid, "VmHWM:"))
            self.own_peak_bytes = max(self.own_peak_bytes, n_bytes - n_shared)

    def stop(self) -> None:
        self._over.set()
        self.join()


def children(pid: int | str = "self") -> list[int]:
    """The process's children."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found.extend(map(int, (task / "children").read_text().split()))
    return found


def _tree(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting.extend(children(found[-1]))
    return found


def _status_bytes(pid: int, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0
