"""Faults on purpose, the smallest campaign: nothing lost, nothing wrong, nothing stuck."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.torture.faults import FAULTS
from benchmarks.torture.fork import Acks
from benchmarks.torture.kills import ELSEWHERE, REACHED
from benchmarks.torture.report import table, totals
from benchmarks.torture.trial import Tried
from tasks.failpoint import PLACES


def campaign(project: Path, **environ: str) -> tuple[dict[str, int], str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.torture"], cwd=project, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(project), **environ},
    )  # fmt: skip
    assert done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr + done.stdout


@pytest.mark.timeout(900)
def test_every_kind_of_fault_is_recovered_from(project: Path) -> None:
    figures, told = campaign(project, QUICK="1")
    assert (figures["lost"], figures["wrong"], figures["stuck"]) == (0, 0, 0), told
    # What this machine may not do (mounting, tracing) is skipped with its reason; kills need nothing.
    assert figures["recovered"] == figures["tries"] >= len(REACHED)


def test_every_failpoint_is_one_of_the_campaign_or_named_with_where_it_is_tested() -> None:
    assert set(REACHED) | set(ELSEWHERE) == set(PLACES)
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_what_was_acknowledged_before_a_kill_is_read_whole() -> None:
    acks = Acks()
    acks.write(kind="step", step="one")
    if not (pid := os.fork()):
        acks.write(kind="step", step="two")
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert [ack["step"] for ack in acks.read()] == ["one", "two"]


def test_a_try_that_lost_something_is_counted_and_a_skipped_fault_is_told() -> None:
    bad = Tried(FAULTS[0].name, 0, "killed", ("train is not in the ledger",), (), "", "", 1.0)
    good = Tried(FAULTS[0].name, 1, "killed", (), (), "", "", 1.0)
    assert totals([bad, good]) == {"tries": 2, "lost": 1, "wrong": 0, "stuck": 0, "recovered": 1, "missed": 0}
    lines = table(FAULTS[:2], [bad, good], {FAULTS[1].name: "needs root"})
    assert lines[2].endswith("| 2 | 1 | 0 | 0 | 1 | 0 |")
    assert "skipped: needs root" in lines[3]
