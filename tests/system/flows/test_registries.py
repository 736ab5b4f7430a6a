"""Which kinds of steps, metrics, checks and sources a new process knows when it reads a pipeline."""

import subprocess
import sys

import pytest

from tests.support.project import PROJECT

REGISTRIES = (
    "print([name for name in ('tasks.curate.steps', 'tasks.assess.metrics', 'tasks.assess.checks', "
    "'tasks.sources.registry') if name not in sys.modules])"
)


@pytest.mark.parametrize(
    "reads",
    [
        "from flows.cli import main\nwith contextlib.suppress(SystemExit):\n"
        "    main(['validate', '--config', 'absent.yaml'])\n",
        "from types import SimpleNamespace\nfrom flows.views.run_reader import spec_of\n"
        "with contextlib.suppress(Exception):\n    spec_of(SimpleNamespace(config={}, run_id='1'))\n",
    ],
    ids=["a file", "a recorded run"],
)
def test_all_kinds_are_loaded_before_a_pipeline_is_read(reads: str) -> None:
    program = f"import contextlib, sys\n{reads}{REGISTRIES}"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
