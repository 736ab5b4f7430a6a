"""The command line: exit codes, JSON, and actionable errors."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.artifacts import ModelRef
from tests.flows.cli.test_app import BROKEN, FINE
from tests.support.commands import NOWHERE
from tests.support.project import PROJECT
from tests.support.workplace import Workplace, environment, give_results


def tunegate(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, in its own process."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, **environ},
        encoding=environ.get("PYTHONIOENCODING"),
    )  # fmt: skip


def test_an_invalid_file_exits_with_code_2_and_shows_the_place(tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(BROKEN)
    done = tunegate("validate", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "pipelines.yaml:5" in done.stderr
    assert "lerning_rate" in done.stderr
    assert "did you mean `learning_rate`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_no_exit_code(closed: str, tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(FINE)
    for words, code in (("validate --json", 0), ("validate", 0), ("predict replies --json", 2)):
        line = f"{shlex.quote(sys.executable)} -m flows.cli {words} {closed}"
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert "TG0001" not in done.stderr


@pytest.mark.parametrize("words", ["explain TG0101", "runs", "runs --json"])
def test_a_full_disk_behind_stdout_is_not_taken_for_that_of_the_home(words: str, tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(FINE)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *words.split()],
            cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert "error[TG0501]: the output cannot be written: No space left on device" in done.stderr
    assert "stdout" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_the_encoding_of_stdout_lacks_is_escaped(encoding: str, tmp_path: Path) -> None:
    folder = tmp_path / "pr\u00e9f\u00e9r\u00e9 \U0001f469"
    folder.mkdir()
    (folder / "pipelines.yaml").write_text(FINE)
    as_json = tunegate("status", "--json", cwd=folder, PYTHONIOENCODING=encoding)
    as_text = tunegate("status", cwd=folder, PYTHONIOENCODING=encoding)
    assert (as_json.returncode, as_text.returncode) == (0, 0), as_json.stderr + as_text.stderr
    assert folder.name in json.loads(as_json.stdout)["home"]
    assert as_json.stdout.isascii()
    assert " \\U0001f469/.tunegate" in as_text.stdout


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: ModelRef, finished: Path) -> Workplace:
    """A workspace with one run and its champion."""
    folder = tmp_path_factory.mktemp("finished-run")
    workplace = Workplace(folder, {**environment(tiny_model.root, folder / "cache"), "PREFECT_API_URL": NOWHERE})
    give_results(workplace.home, finished)
    workplace.declare()
    (folder / "ticket.txt").write_text("Order NB-12345 has not arrived.")
    assert workplace.run("run", "small").returncode == 0
    return workplace


@pytest.mark.parametrize(
    "command",
    [
        "model champion small", "data funnel small", "gate explain RUN", "data lineage small/1",
        "predict small --file ticket.txt", "data preview small -n 1", "data quarantine small", "report RUN", "runs",
        "data sample small", "show RUN", "validate",
    ],
)  # fmt: skip
def test_a_command_prints_the_same_in_its_own_process_as_in_that_of_the_tests(
    finished_run: Workplace, command: str
) -> None:
    run_id = finished_run.json("runs")["runs"][0]["run_id"]
    arguments = [run_id if word == "RUN" else word for word in command.split()]
    here = finished_run.run(*arguments, "--json")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--json"],
        cwd=finished_run.folder, capture_output=True, text=True, check=False,
        env={**finished_run.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)) == (here.returncode, json.loads(here.stdout)), done.stderr
