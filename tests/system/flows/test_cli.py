"""The command line: exit codes, JSON, and errors a person can act on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

BROKEN = """\
version: 1
pipelines:
  replies:
    source: {kind: generated}
    train: {base_model: "file:models/x", lerning_rate: 1e-3}
    gates: {rules: [{metric: exact, value_threshold: 0.5}]}
    register: {name: replies}
"""


def tunegate(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, **environ}, timeout=120,
    )  # fmt: skip


def test_help_comes_at_once(tmp_path: Path) -> None:
    tunegate("--help", cwd=tmp_path)  # compiles the modules
    fastest = 99.0
    for _ in range(5):
        begun = time.perf_counter()
        done = tunegate("--help", cwd=tmp_path)
        fastest = min(fastest, time.perf_counter() - begun)
    assert done.returncode == 0
    assert "rollback" in done.stdout
    assert fastest < 2.0  # 0.35 s measured; the margin is for busy machines, the imports are tested elsewhere


def test_a_wrong_file_ends_with_code_2_and_shows_the_place(tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(BROKEN)
    done = tunegate("validate", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "pipelines.yaml:5" in done.stderr
    assert "lerning_rate" in done.stderr
    assert "did you mean `learning_rate`" in done.stderr
    assert "Traceback" not in done.stderr
