"""The examples for other programs, run by an interpreter that has none of our packages, against the real command.

Training, Airflow and Dagster are not there: what runs is each example's part that calls tunegate.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
BARE = [os.path.realpath(sys.executable), "-S", "-s"]
"""An interpreter with the standard library alone."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: copies of the examples, and results of a model in service and of a better candidate."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for file in (PROJECT / "infra" / "examples").glob("*.py"):
        shutil.copy(file, folder)
    (folder / "results").mkdir()
    for name, n_right in (("in-service", 300), ("candidate", 330), ("worse", 250)):
        rows = [
            {"id": item, "prompt": f"question {item}", "answer": "a" if item < n_right else "b", "reference": "a"}
            for item in range(400)
        ]
        (folder / "results" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def run(folder: Path, *words: str, tunegate: str = "") -> subprocess.CompletedProcess[str]:
    ours = f"env PYTHONPATH={shlex.quote(str(PROJECT))} {shlex.quote(sys.executable)} -m flows.cli"
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "TUNEGATE": tunegate or ours}
    return subprocess.run([*BARE, *words], cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_the_interpreter_has_none_of_our_packages(folder: Path) -> None:
    found = run(folder, "-c", "import flows")
    assert "No module named 'flows'" in found.stderr


def test_each_example_lets_only_a_promoted_candidate_through(folder: Path) -> None:
    first = run(folder, "airflow_dag.py")
    assert (first.returncode, first.stdout[:8]) == (0, "PROMOTE:"), first.stderr
    again = run(folder, "dagster_assets.py")
    assert (again.returncode, again.stdout[:13]) == (0, "verdict: SKIP"), again.stderr
    worse = run(folder, "trl_script.py", "--results", "results/worse.jsonl", "--version-of", "commit-2")
    assert (worse.returncode, worse.stdout[:6]) == (1, "BLOCK:"), worse.stderr


def test_without_a_verdict_an_example_fails(folder: Path) -> None:
    absent = run(folder, "trl_script.py", "--results", "results/worse.jsonl", tunegate="/nowhere/tunegate")
    assert absent.returncode != 0
    assert "did not run" in absent.stderr
    unreadable = run(folder, "trl_script.py", "--results", "gate.py")
    assert unreadable.returncode != 0
    assert "TG0262" in unreadable.stderr
    weakened = folder / "weakened.sh"  # what the command prints with --no-weaker
    weakened.write_text("""echo '{"error":{"code":"TG0626","message":"the gate is weaker"},"exit_code":9}'; exit 9""")
    refused = run(folder, "trl_script.py", "--results", "results/worse.jsonl", tunegate=f"/bin/sh {weakened}")
    assert (refused.returncode, "NoVerdictError: exit code 9: the gate is weaker" in refused.stderr) == (1, True)
