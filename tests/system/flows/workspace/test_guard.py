"""What a process sets up first: private files, and no secret in any log or traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

# Prefect's loggers, if another test has set them up, warn of a missing flow run.
pytestmark = pytest.mark.filterwarnings("ignore:Logger .prefect:UserWarning")

SECRET = "secret-token-4711"


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_the_command_prints_no_secret_even_with_debug(tmp_path: Path, project: Path, debug: list[str]) -> None:
    """A secret in an internal error, the worst case."""
    code = (
        "import flows.cli.planning as v, flows.cli as f, os, sys\n"
        "def broken(*_, **__): raise KeyError(os.environ['MY_TOKEN'])\n"
        "v.faults_of = broken\n"
        f"f.main({[*debug, 'validate', '--json']!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env={"MY_TOKEN": SECRET, "PATH": "/bin", "PYTHONPATH": str(project)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "internal error: KeyError" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert ("KeyError: '${env:MY_TOKEN}'" in done.stderr) == bool(debug)


def test_files_that_a_command_writes_are_private(tmp_path: Path, project: Path) -> None:
    code = (
        "from flows.workspace.guard import guard_process; guard_process()\n"
        "from pathlib import Path; Path('a').mkdir(); Path('a/b').write_text('x')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(project)}, check=True)
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("a", "a/b")] == ["0o700", "0o600"]
