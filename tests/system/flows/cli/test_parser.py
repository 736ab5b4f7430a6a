"""Every command follows the same rules: `--json`, help with an example that parses, completion, no colour."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.specs import SMALL_FILE

COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|9[0-9]|10[0-7])[0-9;]*m")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_with_the_printed_script(tmp_path: Path) -> None:
    script = """
        eval "$(tunegate --show-completion)"
        COMP_WORDS=(tunegate gate explain --met) COMP_CWORD=3
        _tunegate_completion tunegate
        echo "${COMPREPLY[@]}"
    """
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("--metric\n", "")


def on_a_terminal(*arguments: str, cwd: Path, **environ: str) -> str:
    """The terminal output, escape sequences included."""
    shown = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "flows.cli", *arguments]
    environment = {**shown, "TERM": "xterm", **environ}
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=end, stdout=end, stderr=end)
    os.close(end)
    seen, deadline = b"", time.monotonic() + 600
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # the other end has closed
                break
            if not part:
                break
            seen += part
    process.wait()
    os.close(terminal)
    return seen.decode(errors="replace")


WARNED = SMALL_FILE.replace('x"}', 'x", learning_rate: 2e-3}')


def test_help_and_warnings_honour_no_color(tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(WARNED)
    with_colour = on_a_terminal("validate", cwd=tmp_path)
    assert "unusual" in with_colour
    assert COLOUR.search(with_colour)  # otherwise the next lines would prove nothing
    for arguments in (("validate",), ("run", "--help"), ("run",)):
        plain = on_a_terminal(*arguments, cwd=tmp_path, NO_COLOR="1")
        assert len(plain) > 40
        assert not COLOUR.search(plain), arguments
