"""`tunegate ...`: the command line. One file per group of commands, each with its arguments, help, example and work.

`app.py` is the program: errors and exit codes. `commands.py` lists the commands with their files, which are imported
when one of their commands is called. A command returns a `Result`, which `output.py` prints as text or as JSON.
"""

from flows.cli.app import main

__all__ = ["main"]
