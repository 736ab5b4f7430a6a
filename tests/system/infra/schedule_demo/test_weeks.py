"""Three weeks of `make demo-schedule` on the tiny model: killed and resumed, skipped, blocked, and displayed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.cli.history import history
from flows.cli.reports import show
from flows.ledger.ledger import Ledger
from tests.support.workplace import ForkedWorkplace


@pytest.mark.campaign
@pytest.mark.server
def test_three_weeks_are_killed_skipped_and_blocked(
    empty_workplace: ForkedWorkplace,
    project: Path,
    tmp_path: Path,
    empty_store: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = shutil.copy(empty_store, tmp_path / "mlflow.db")
    environ = {**empty_workplace.environ, "PYTHONPATH": str(project), "MLFLOW_TRACKING_URI": f"sqlite:///{store}"}
    done = subprocess.run(
        [
            sys.executable, "-m", "infra.schedule_demo", "--tiny", "--quick", "--base",
            f"file:{empty_workplace.environ['TINY_MODEL']}", "--story", "killed,quiet,poisoned",
            "--out", str(tmp_path / "o"),
        ],
        cwd=project, env=environ, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "o").iterdir()
    rows = [line.split() for line in (folder / "weeks.txt").read_text().splitlines()[1:]]
    assert [row[:4] for row in rows] == [
        ["1", "killed", "RUN", "first"], ["2", "quiet", "SKIP", "few"], ["3", "poisoned", "RUN", "enough"],
    ]  # fmt: skip
    assert (folder / "weeks.svg").read_text().count("<polyline") == 3
    assert "killed at ledger.mark (exit code -9)" in done.stderr

    ledger = Ledger(folder / ".tunegate")
    champion = ledger.champion("replies")
    assert champion is not None
    assert [row.verdict for row in reversed(ledger.runs())] == [None, "PROMOTE", None, "BLOCK"]
    assert [event.action for event in ledger.history("replies")] == ["promote"]  # once, although the run was killed
    killed, resumed, quiet, poisoned = ledger.ticks("replies")
    assert killed.decision.arrivals == resumed.decision.arrivals
    assert {step.state for step in ledger.steps(resumed.run_id)} == {"reused"}  # nothing ran twice
    assert ledger.run(resumed.run_id).reason.endswith("was interrupted after its promotion; its verdict holds")
    # The mark moved with the two verdicts, but not with the kill or the skip.
    marked = [row.run_id for row in reversed(ledger.runs()) if ledger.mark_of(row.run_id)]
    assert marked == [resumed.run_id, poisoned.run_id]
    assert quiet.decision.reason.endswith(f"expected to run on {quiet.decision.expected}")
    assert poisoned.decision.arrivals is not None
    assert poisoned.decision.arrivals.n_edited > 50  # the broken export rewrote known tickets

    config = folder / "pipelines.yaml"

    def printed(command: Any, **arguments: Any) -> Any:
        command(config=config, as_json=True, **arguments)
        return json.loads(capsys.readouterr().out)

    ticks = printed(history, pipeline="replies")["ticks"]
    assert [one["code"] for one in ticks] == ["first", "first", "few", "enough"]
    shown = printed(show, run_id=poisoned.run_id)
    assert shown["snapshot"]["snapshot_id"] == poisoned.decision.arrivals.snapshot_id
    # Feedback on the champion's suggestions reached the gate.
    [live] = [finding for finding in shown["findings"] if finding["part"] == "live"]
    assert (live["rule"], live["decides"], live["verdict"]) == ("live acceptance of v1", False, "HOLD")
    assert live["n_items"] > 0
