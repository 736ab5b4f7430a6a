"""Processes to start and kill, and the ledger in a file and in Postgres."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.ledger.ledger import Ledger
from tests.flows.ledger.conftest import in_file, kit, tree
from tests.support.postgres import Postgres
from tests.support.project import PROJECT
from tests.support.warm import Warm, WarmProcess

PROGRAM = "tests.support.engine_process"
RUN = f"import sys, {PROGRAM} as program; sys.exit(program.main())"
"""Imports the program as a module, so that its keys equal the tests' keys."""

Start = Callable[..., "subprocess.Popen[str] | WarmProcess"]


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    """An empty ledger, in a file and in Postgres."""
    if request.param == "sqlite":
        return Ledger(tmp_path / "home")
    server: Postgres = request.getfixturevalue("postgres")
    return Ledger(tmp_path / "home", server.fresh())


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start `engine_process.py` with these arguments, as a fork or on the host `at`; kill what still runs at the end.

    It is a new interpreter on a host, whose tests write to its standard input, and where the environment concerns that.
    """
    running: list[subprocess.Popen[str] | WarmProcess] = []

    def start(
        *arguments: object, failpoint: str = "", at: tuple[str, ...] = (), **environ: str
    ) -> subprocess.Popen[str] | WarmProcess:
        if isinstance(arguments[0], Ledger):  # the same ledger, in another process
            environ["TUNEGATE_LEDGER_URL"] = getattr(arguments[0].kept, "url", "")
            arguments = (arguments[0].root, *arguments[1:])
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TUNEGATE_FAILPOINT": failpoint, **environ}
        words = [*map(str, arguments)]
        if at or "PYTHONHASHSEED" in environ:
            running.append(
                subprocess.Popen(
                    [*at, sys.executable, "-c", RUN, *words],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                )
            )  # fmt: skip
        else:
            warm: Warm = request.getfixturevalue("warm")
            running.append(warm.start(words, cwd=PROJECT, environ=environment, program=PROGRAM))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        if process.stdout is not None and not process.stdout.closed:
            process.communicate()
