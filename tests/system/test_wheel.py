"""The built wheel without the extra `train`, in an environment of its own and far from the checkout.

`tests/system/docs/test_scenes.py` runs the pages with the extra.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.ledger.ledger import Ledger
from tests.support.environments import wheel_python
from tests.support.shared import made_once
from tests.system.flows.cli.test_weekly_init import write_export

MOST_BYTES = 1.2e9
RUN_ALL = """
import json, sys
from flows.cli.app import main

for words in json.loads(sys.argv[1]):
    code = 0
    try:
        main(words)
    except SystemExit as stop:
        code = stop.code
    for stream in (sys.stdout, sys.stderr):
        print(flush=True, file=stream)
    print("\\x1e", code, *words, flush=True)
print(*sorted(name for name in sys.modules if "." not in name))
"""
"""Runs each list of words as a command, in one process: an interpreter of its own would cost each a few seconds."""


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    output: str


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment of the wheel."""
    return made_once(tmp_path_factory, "wheel", lambda folder: wheel_python(folder / "env")) / "env" / "bin" / "python"


def run_all(python: Path, commands: Sequence[str], *, folder: Path) -> tuple[dict[str, Done], set[str]]:
    """Run the commands in the folder, with nothing of this process's environment; also the modules imported."""
    done = subprocess.run(
        [python, "-c", RUN_ALL, json.dumps([each.split() for each in commands])], cwd=folder, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={"HOME": str(folder.parent), "PATH": f"{python.parent}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    *parts, modules = re.split(r"\x1e (\d+) (.+)\n", done.stdout)
    outputs, codes, words = parts[::3], parts[1::3], parts[2::3]
    return {each: Done(int(code), output) for output, code, each in zip(outputs, codes, words, strict=True)}, set(
        modules.split()
    )


def test_a_file_becomes_curated_tickets_and_a_training_is_refused_before_anything_runs(
    python: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    write_export(folder, 120)
    curate = (
        "init --from tickets.csv", "validate --data", "data curate tickets", "plan tickets", "data funnel tickets",
        "data sample tickets -n 1", "study estimate --base llama-3-8b", "explain TG0112", "ops doctor", "ops metrics",
    )  # fmt: skip
    computes = (
        "run tickets", "ops tick tickets", "try tickets.csv", "predict tickets", "data preview tickets",
        "model export tickets@champion --out given", "model endpoint tickets", "study ablate tickets",
    )  # fmt: skip
    done, modules = run_all(python, (*curate, *computes, "runs --json"), folder=folder)
    assert {each: done[each].code for each in curate} == dict.fromkeys(curate, 0), done
    assert "a run of tickets needs the extra `train`" in done["plan tickets"].output
    for each in computes:
        assert done[each].code == 2, done[each]
        assert re.search(
            r"TG0112.*extra `train`.*torch[\s\S]*hint: uv pip install.*tunegate\[train\] @ file:", done[each].output
        ), each
    [run] = json.loads(done["runs --json"].output)["runs"]
    assert run["reason"] == "ran until curate"
    assert modules.isdisjoint({"torch", "transformers", "peft"})
    assert "duckdb" in modules


def test_verdicts_reports_and_the_ledger_of_another_machine_are_read(
    python: Path, finished: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished, tmp_path / "finished")
    reads = (
        "runs", "status", "report --last small", "show RUN", "gate explain RUN", "model champion small",
        "model history small", "study advise small", "study cost small", "graph small --run RUN", "ops reconcile",
    )  # fmt: skip
    [run] = Ledger(folder / ".tunegate").runs(limit=1, pipeline="small")
    done, modules = run_all(python, [each.replace("RUN", run.run_id) for each in reads], folder=folder)
    codes = {each: these.code for each, these in done.items()}
    assert codes == {**dict.fromkeys(done, 0), "study advise small": 8}, done  # 8: evidence is missing
    assert modules.isdisjoint({"torch", "transformers", "peft"})


def test_the_environment_is_small_and_has_every_file_that_the_program_reads(python: Path, project: Path) -> None:
    size = sum(path.stat().st_size for path in python.parents[1].rglob("*") if path.is_file() and not path.is_symlink())
    assert size < MOST_BYTES, f"{size / 1e9:.2f} GB"
    [packages] = python.parents[1].glob("lib/python*/site-packages")
    assert not any((packages / name).exists() for name in ("torch", "triton", "nvidia", "transformers", "bitsandbytes"))
    for room in ("flows", "tasks", "schemas"):
        files = {path.relative_to(project) for path in (project / room).rglob("*") if path.is_file()}
        ours = {each for each in files if "__pycache__" not in each.parts}
        assert [each for each in sorted(ours) if not (packages / each).is_file()] == []
