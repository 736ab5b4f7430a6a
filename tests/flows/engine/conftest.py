"""Processes to start and kill, and the parts that they share with the tests."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from flows.engine.ledger import Ledger
from tests.postgres import Postgres

PROGRAM = Path(__file__).with_name("engine_process.py")
PROJECT = Path(__file__).resolve().parents[3]
RUN = "import sys, engine_process; sys.exit(engine_process.main())"  # as a module, so that its keys are the tests' keys

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def kit() -> ModuleType:
    """`engine_process.py` as a module."""
    spec = importlib.util.spec_from_file_location("engine_process", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["engine_process"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    """An empty ledger, in a file and in Postgres."""
    if request.param == "sqlite":
        return Ledger(tmp_path / "home")
    server: Postgres = request.getfixturevalue("postgres")
    return Ledger(tmp_path / "home", server.fresh())


@pytest.fixture
def in_file(tmp_path: Path) -> Ledger:
    """An empty ledger in a file."""
    return Ledger(tmp_path / "home")


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `engine_process.py` with these arguments, `at` a host of a network if one is given; whatever still runs at
    the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def start(
        *arguments: object, failpoint: str = "", at: tuple[str, ...] = (), **environ: str
    ) -> subprocess.Popen[str]:
        if isinstance(arguments[0], Ledger):  # this very ledger, in another process
            environ["TUNEGATE_LEDGER_URL"] = getattr(arguments[0].kept, "url", "")
            arguments = (arguments[0].root, *arguments[1:])
        environment = {
            **os.environ,
            "PYTHONPATH": f"{PROJECT}:{PROGRAM.parent}",
            "TUNEGATE_FAILPOINT": failpoint,
            **environ,
        }
        process = subprocess.Popen(
            [*at, sys.executable, "-c", RUN, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def tree() -> Callable[[Path], dict[str, tuple[int, bytes]]]:
    """Every path below a folder with each file's time of change and bytes: equal snapshots, untouched disk."""

    def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) if path.is_file() else (0, b"")
            for path in folder.rglob("*")
        }

    return tree
