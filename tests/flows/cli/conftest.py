"""A folder with a pipeline and nothing else, and commands that fail in it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import run_here
from tests.support.specs import SMALL_FILE

PIPELINE = SMALL_FILE.replace(
    "    train:", "    curate: {steps: [{uses: sql, name: own, file: absent.sql}]}\n    train:"
)


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
