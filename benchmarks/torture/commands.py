"""The command line as users start it: processes of their own with a real Prefect server, killed.

Everything else here is forks without Prefect, which are ten times faster.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.torture.homes import environment
from benchmarks.torture.trial import Fault, Trial
from benchmarks.torture.world import PIPELINE
from flows.servers import running

TUNEGATE = str(Path(sys.executable).with_name("tunegate"))
LONGEST_S = 300.0
TYPICAL_S = 30.0
"""A run of the toy world with a server to start, on two slow cores; kills are drawn from the first part of it."""
TARGETS = ("the command", "all its processes", "Prefect")


@contextmanager
def killed_command(trial: Trial) -> Iterator[str]:
    """`tunegate run` itself, every process of it, or its Prefect server is killed after a random time."""
    trial.begin()
    environ = {**os.environ, **environment(trial.place), "OMP_NUM_THREADS": "1"}
    environ.pop("PREFECT_API_URL", None)
    target, after = TARGETS[trial.number % len(TARGETS)], trial.dice.uniform(0, TYPICAL_S)
    said = trial.folder / "command.txt"
    trial.stack.callback(
        subprocess.run, [TUNEGATE, "down"], cwd=trial.place, env=environ, capture_output=True, check=False
    )
    with said.open("w") as stream:
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
        raise RuntimeError(f"without Prefect the run ended with {code}: {said.read_text()[-1500:]}")
    trial.stage = trial.stage or "whole"
    yield f"{target} killed after {after:.1f} s: {code}"


def _kill_prefect(trial: Trial, command: subprocess.Popen[bytes], after: float) -> None:
    while command.poll() is None:
        server = next((each for each in running(trial.home) if each.kind == "prefect"), None)
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


COMMANDS = (
    Fault(
        "command killed", "`tunegate run`, all of it, or its Prefect server, as real processes", killed_command, 1, 12
    ),
)
