"""Where the benchmarks keep what they build, the environments of the peers, and what machine this is.

Everything lies under BENCH_HOME (default `.bench/`, ignored by git). Each peer gets a virtual environment from its
pinned list in `benchmarks/peers/`, never the project's own. Called by `benchmarks/dedup.py` and `benchmarks/curate.py`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PEERS = PROJECT / "benchmarks" / "peers"
PYTHONS = {"text-dedup": "3.12"}
"""Peers whose pins are for another Python than `DEFAULT_PYTHON`."""
DEFAULT_PYTHON = "3.11"


class MissingError(Exception):
    """A peer's environment cannot be had here; the message says why."""


def bench_home() -> Path:
    """The folder of corpora, answers, environments and scratch files."""
    folder = Path(os.environ.get("BENCH_HOME") or PROJECT / ".bench").resolve()
    for part in ("corpora", "env", "scratch"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return folder


def peer_python(name: str, home: Path) -> Path:
    """The interpreter of a peer's environment, built when it is absent or its list has changed.

    Raises:
        MissingError: no uv, no such Python, or the package index does not have the pinned versions.
    """
    pins, folder = PEERS / f"{name}.txt", home / "env" / name
    python, told = folder / "bin" / "python", folder / "requirements.txt"
    if python.exists() and told.exists() and told.read_text() == pins.read_text():
        return python
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise MissingError("uv is not installed (make install)")
    if not python.exists():
        _run([uv, "venv", "--quiet", "--python", find_python(PYTHONS.get(name, DEFAULT_PYTHON)), str(folder)])
    _run([uv, "pip", "sync", "--quiet", "--compile-bytecode", "--python", str(python), str(pins)])
    told.write_text(pins.read_text())
    return python


def find_python(wanted: str) -> str:
    """An interpreter of this minor version: our own, one on PATH, or one of pyenv's.

    Raises:
        MissingError: there is none.
    """
    if f"{sys.version_info.major}.{sys.version_info.minor}" == wanted:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for found in (shutil.which(f"python{wanted}"), *map(str, pyenv.glob(f"{wanted}.*/bin/python"))):
        # A shim on PATH may name a version that is not selected, so each is asked.
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    raise MissingError(f"there is no Python {wanted} on this machine")


def pinned(name: str) -> dict[str, str]:
    """Package -> version of a peer's list."""
    lines = (PEERS / f"{name}.txt").read_text().split()
    return dict(line.split("==") for line in lines)


def describe_machine() -> dict[str, str]:
    """Processor, memory, system, versions, time and load: what a figure means nothing without."""
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in ("duckdb", "numba", "numpy", "pyarrow"))
    return {
        "processor": f"{processor}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "libraries": versions,
        "time": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load": load(),
    }


def load() -> str:
    """Load averages of 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingError(done.stderr.strip().splitlines()[0] if done.stderr.strip() else "uv failed")


def interpreters(environments: set[str], home: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Environment -> interpreter, and environment -> why there is none."""
    pythons, missing = {"project": Path(sys.executable)}, {}
    for name in sorted(environments - {"project"}):
        try:
            pythons[name] = peer_python(name, home)
        except MissingError as error:
            missing[name] = f"not there: {error}"
            print(f"{name}: {missing[name]}", file=sys.stderr)
    return pythons, missing
