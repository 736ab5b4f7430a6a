"""The smallest fault campaign: nothing lost, nothing wrong, nothing stuck."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.torture.fork import Acks
from benchmarks.torture.kills import REACHED


def campaign(project: Path, **environ: str) -> tuple[dict[str, int], str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.torture"], cwd=project, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(project), **environ},
    )  # fmt: skip
    assert done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr + done.stdout


@pytest.mark.campaign  # minutes; the kills of single steps and commands have tests of their own
@pytest.mark.timeout(900)
def test_every_kind_of_fault_is_recovered_from(project: Path) -> None:
    figures, row = campaign(project, QUICK="1")
    assert (figures["lost"], figures["wrong"], figures["stuck"]) == (0, 0, 0), row
    # Faults that this machine does not permit (mounting, tracing) are skipped with a reason; kills need no permission.
    assert figures["recovered"] + figures["no_fault"] == figures["tries"]
    assert figures["recovered"] >= len(REACHED)


def test_acknowledgements_before_a_kill_are_read_completely() -> None:
    acks = Acks()
    acks.write(kind="step", step="one")
    if not (pid := os.fork()):
        acks.write(kind="step", step="two")
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert [ack["step"] for ack in acks.read()] == ["one", "two"]
