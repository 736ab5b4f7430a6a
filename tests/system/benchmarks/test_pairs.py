"""The pairs of consecutive weeks: their benchmark in the toy world, as a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.campaign
def test_consecutive_weeks_are_compared_on_the_same_questions(project: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pairs"], cwd=project,
        env={**os.environ, "QUICK": "1", "BENCH_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert len(last["pairs"]) == 4  # two policies, three weeks
    assert all(pair["n"] == 60 and pair["differing"] >= pair["gained"] + pair["lost"] for pair in last["pairs"])
    assert 0 <= last["discordance"] <= last["differing"] <= 1
