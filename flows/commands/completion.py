"""`tunegate completion`: a script for bash, zsh or fish."""

from __future__ import annotations

import sys

import typer

from flows.commands.output import print_json
from flows.completion import bash_script, fish_script, read_parser, zsh_script

SCRIPTS = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
USE = {
    "bash": "source <(tunegate completion bash)",
    "zsh": "source <(tunegate completion zsh)",
    "fish": "tunegate completion fish | source",
}


def completion(*, shell: str, as_json: bool) -> int:
    """Print the script, or an object with it and with the line for the shell's own start-up file."""
    from flows.cli import app

    script = SCRIPTS[shell](tuple(read_parser(typer.main.get_command(app))))
    if as_json:
        print_json({"shell": shell, "use": USE[shell], "script": script})
    else:
        sys.stdout.write(script)
    return 0
