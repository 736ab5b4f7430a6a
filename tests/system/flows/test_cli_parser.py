"""Every command keeps the house's rules: `--json`, a help text with an example that parses, completion, no colour."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.completion import bash_script, fish_script, read_parser, zsh_script
from tests.flows.test_cli_parser import ALL, PARSER

COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|9[0-9]|10[0-7])[0-9;]*m")


def scripts() -> dict[str, str]:
    words = tuple(read_parser(PARSER))
    return {"bash": bash_script(words), "zsh": zsh_script(words), "fish": fish_script(words)}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (("tunegate", "cha"), ["champion"]),
        (("tunegate", "run", "support-replies-m"), ["support-replies-mislabelled"]),
        (("tunegate", "run", "--unt"), ["--until"]),
        (("tunegate", "export", "x", "--format", "g"), ["gguf"]),
        (("tunegate", "gate", ""), ["explain"]),
        (("tunegate", "gate", "explain", "--met"), ["--metric"]),
        (("tunegate", "completion", "f"), ["fish"]),
        (("tunegate", "init", "--from", "tick"), []),
    ],
)
def test_bash_completes(line: tuple[str, ...], wanted: list[str], project: Path, tmp_path: Path) -> None:
    script = tmp_path / "tunegate.bash"
    script.write_text(scripts()["bash"])
    words = " ".join(shlex.quote(word) for word in line)
    state = f"COMP_WORDS=({words}); COMP_CWORD={len(line) - 1}"
    ask = f"source {script}; {state}; _tunegate; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", ask], cwd=project, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.split() == wanted


def test_every_command_and_option_stands_in_every_script() -> None:
    for shell, script in scripts().items():
        for name, command in ALL.items():
            assert name.split()[-1] in script, (shell, name)
            for parameter in command.params:
                for option in parameter.opts if parameter.opts[0].startswith("--") else ():
                    assert option.lstrip("-") in script, (shell, name, option)
        if shutil.which(shell):
            check = {"bash": ["-n"], "zsh": ["-n"], "fish": ["--no-execute"]}[shell]
            done = subprocess.run(
                [shell, *check, "/dev/stdin"], input=script, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr


def on_a_terminal(*arguments: str, cwd: Path, **environ: str) -> str:
    """What a person sees, escape sequences included."""
    shown = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "flows.cli", *arguments]
    environment = {**shown, "TERM": "xterm", **environ}
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=end, stdout=end, stderr=end)
    os.close(end)
    seen, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # the other side has closed
                break
            if not part:
                break
            seen += part
    process.wait(30)
    os.close(terminal)
    return seen.decode(errors="replace")


WARNED = """\
version: 1
pipelines:
  replies:
    source: {kind: generated}
    train: {base_model: "file:x", learning_rate: 2e-3}
    gates: {rules: [{metric: exact, value_threshold: 0.5}]}
    register: {name: replies}
"""


def test_no_color_is_honoured_by_help_and_by_warnings(tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(WARNED)
    with_colour = on_a_terminal("validate", cwd=tmp_path)
    assert "unusual" in with_colour
    assert COLOUR.search(with_colour)  # or the next lines would prove nothing
    for arguments in (("validate",), ("run", "--help"), ("run",)):
        plain = on_a_terminal(*arguments, cwd=tmp_path, NO_COLOR="1")
        assert len(plain) > 40
        assert not COLOUR.search(plain), arguments
