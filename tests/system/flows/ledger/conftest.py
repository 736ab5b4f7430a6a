"""Processes to start and kill, and the ledger in a file and in Postgres."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.ledger.ledger import Ledger
from tests.flows.ledger.conftest import PROGRAM, in_file, kit, tree
from tests.support.postgres import Postgres
from tests.support.project import PROJECT

RUN = "import sys, engine_process; sys.exit(engine_process.main())"
"""Imports `engine_process` as a module, so that its keys equal the tests' keys."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    """An empty ledger, in a file and in Postgres."""
    if request.param == "sqlite":
        return Ledger(tmp_path / "home")
    server: Postgres = request.getfixturevalue("postgres")
    return Ledger(tmp_path / "home", server.fresh())


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `engine_process.py` with these arguments, on the host `at` if given; kill what still runs at the end."""
    running: list[subprocess.Popen[str]] = []

    def start(
        *arguments: object, failpoint: str = "", at: tuple[str, ...] = (), **environ: str
    ) -> subprocess.Popen[str]:
        if isinstance(arguments[0], Ledger):  # the same ledger, in another process
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
