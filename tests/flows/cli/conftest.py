"""A folder with a pipeline and nothing else, and commands that fail in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import run_here

PIPELINE = """\
version: 1
pipelines:
  replies:
    source: {kind: generated}
    curate: {steps: [{uses: sql, name: own, file: absent.sql}]}
    train: {base_model: "file:models/x"}
    gates: {rules: [{metric: exact, value_threshold: 0.5}]}
    register: {name: replies}
"""


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """Run a command that must fail; return its stderr."""
    (tmp_path / "pipelines.yaml").write_text(PIPELINE)

    def run(*words: str, **environ: str) -> str:
        inherited = {name: value for name, value in os.environ.items() if name != "TUNEGATE_HOME"}
        done = run_here(words, cwd=tmp_path, environ=inherited | environ)
        assert done.returncode != 0
        return done.stderr

    return run
