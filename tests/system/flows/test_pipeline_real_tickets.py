"""Real public tickets and the real SmolLM2, from the file to a verdict."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.workspace.servers import client_environment, ensure_prefect, stop_all
from schemas.artifacts import ModelRef
from schemas.load import load_file
from schemas.verdicts import CHECKS

PIPELINES = Path(__file__).with_name("real_tickets.yaml")


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[dict[str, str]]:
    """Environment of the runs: one home folder and one Prefect server for both pipelines."""
    home = tmp_path_factory.mktemp("real-home")
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    server = ensure_prefect(home, environ=outside)
    yield {
        **outside,
        **client_environment(server),
        "REAL_DATA": str(shared_data),
        "TUNEGATE_HOME": str(home),
        "OMP_NUM_THREADS": "1",
    }
    stop_all(home)


def test_the_declared_pipelines_are_valid(shared_data: Path) -> None:
    loaded = load_file(PIPELINES, environ={"REAL_DATA": str(shared_data)})
    assert set(loaded.pipelines) == {"bitext", "banking77"}


@pytest.mark.model
@pytest.mark.server
@pytest.mark.timeout(1800)  # takes minutes, longer without bfloat16
@pytest.mark.parametrize(
    ("name", "n_rows", "n_items"),
    [("bitext", 4514, 10), pytest.param("banking77", 10003, 20, marks=pytest.mark.campaign)],
)
def test_real_tickets_reach_a_verdict(
    name: str, n_rows: int, n_items: int, environ: dict[str, str], smollm2: ModelRef
) -> None:
    command = [sys.executable, "-m", "flows.cli", "run", name, "--config", str(PIPELINES), "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=1700)
    assert done.stdout, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["verdict"] in {"PROMOTE", "HOLD", "BLOCK"}, outcome
    assert done.returncode == {"PROMOTE": 0, "HOLD": 8, "BLOCK": 5}[outcome["verdict"]]
    assert (outcome["champion"] == outcome["version"]) == (outcome["verdict"] == "PROMOTE")

    show = [sys.executable, "-m", "flows.cli", "show", outcome["run_id"], "--config", str(PIPELINES), "--json"]
    report = json.loads(subprocess.run(show, env=environ, capture_output=True, text=True, check=True).stdout)
    rows = {step["step"]: step for step in report["steps"]}
    assert rows["extract"]["n_in"] == n_rows  # every row of the file was read
    assert all(finding["n_items"] == n_items for finding in report["findings"] if finding["part"] != "round_trip")
    shown = [finding for finding in report["findings"] if finding["part"] not in CHECKS]
    assert shown
    assert all(finding["lower"] is not None for finding in shown)
