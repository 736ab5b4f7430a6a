"""`tunegate ...`: the command line. One file per group of commands, each with its arguments, help, example and work.

`app.py` is the program: the top level, errors and exit codes. `weekly.py` has the commands of the top level; `data.py`,
`gate.py`, `model.py`, `study.py` and `ops.py` have the groups. `text/` is what people see of larger results.

The files of the groups are all imported for `tunegate --help` and for every press of TAB, so they import only what
takes no time; what a command works with is imported when it is called.
"""

from flows.cli.app import main

__all__ = ["main"]
