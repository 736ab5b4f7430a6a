"""Exit codes that belong to no error class; the others come from `schemas/errors.py` and the verdicts."""

ABORTED = 130
"""As after SIGINT, by which a person interrupts."""
BROKEN_PIPE = 141
"""As after SIGPIPE: whoever read the output has stopped."""
TERMINATED = 143
"""As after SIGTERM: ended from outside."""
HOLD = 8
"""There is not enough evidence."""


class CtrlCError(Exception):
    """A person pressed Ctrl-C in a command; Typer would end on KeyboardInterrupt without a word.

    Its argument is the run that was interrupted, if there is one.
    """
