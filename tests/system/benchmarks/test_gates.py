"""The gate's benchmark, in seconds: its bars, and the same verdicts as the real gate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gates.promises import AT_LEAST, AT_MOST


@pytest.mark.campaign
def test_the_benchmark_ends_with_one_line_of_json(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gates"], cwd=project, env={**os.environ, "QUICK": "1", "ONLY": "gate"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert {*AT_MOST, *AT_LEAST, "items_year"} <= last.keys()
    assert last["bars_missed"] == []
    assert last["bars_met"] is True
