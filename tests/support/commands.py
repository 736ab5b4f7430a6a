"""Runs `tunegate` commands in this process: same parser, errors and exit codes, no new interpreter.

Restores what a command changes in its process (environment, folder, umask, signal handlers, log handlers). Training
forks this process. An unreachable Prefect server is given up at once, not after five seconds.
"""

import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from benchmarks.forked import ALONE, Forked
from flows.cli import main
from flows.workspace import servers
from tasks.train import launch

NOWHERE = "http://127.0.0.1:9/api"
"""A Prefect server that does not answer; runs continue without it, as for users."""


def run_here(arguments: Sequence[str], *, cwd: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `tunegate ARGUMENTS` and wait for it, like `subprocess.run`."""
    out, error = io.StringIO(), io.StringIO()
    code: int | str | None = 0
    with _restored(), redirect_stdout(out), redirect_stderr(error):
        os.environ.clear()
        os.environ.update({**ALONE, **environ})
        os.chdir(cwd)
        sys.argv = ["tunegate", *arguments]
        try:
            main(list(arguments))
        except SystemExit as stop:
            code = stop.code
    assert isinstance(code, int), code
    return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), error.getvalue())


@contextmanager
def _restored() -> Iterator[None]:
    environ, folder, argv = dict(os.environ), Path.cwd(), sys.argv
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    records, log_handlers = logging.getLogRecordFactory(), list(logging.getLogger("tunegate").handlers)
    umask = os.umask(0o077)
    os.umask(umask)
    try:
        with patch.object(launch, "_start", Forked), patch.object(servers, "YOURS_TIMEOUT_S", 0):
            yield
    finally:
        os.umask(umask)
        logging.setLogRecordFactory(records)
        logging.getLogger("tunegate").handlers[:] = log_handlers
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.argv = argv
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environ)
