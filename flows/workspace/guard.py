"""What every process of ours does first: what it writes is its user's alone, and what it says holds no secret.

Called once by `flows/cli/app.py`, and by `flows/run/open_run.py` for runs that Prefect starts. It knows nothing of
runs.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from schemas.secrets import know_secrets, masked
from tasks.visible import visible

PRIVATE_UMASK = 0o077
"""Files 0600, folders 0700: ticket text, weights and the ledger are nobody else's."""


def guard_process(environ: Mapping[str, str] = os.environ) -> None:
    """Set the umask, remember the environment's secrets and keep them out of every log; may be repeated."""
    os.umask(PRIVATE_UMASK)
    know_secrets(environ)
    guard_logs()


def guard_logs() -> None:
    """Let no logger of this process write a secret, whoever makes it and whatever handlers it has, now or later.

    A filter on the root logger would not see what other loggers hand to their own handlers, and one on each handler
    would miss those that Prefect adds later. So the records themselves are made without secrets.
    """
    made = logging.getLogRecordFactory()
    if not getattr(made, "guards", False):
        logging.setLogRecordFactory(_guarded(made))


def say_traceback(error: BaseException) -> None:
    """Print the traceback to stderr, without secrets and without what a terminal would obey."""
    sys.stderr.write(visible(masked("".join(traceback.format_exception(error)))))


def _guarded(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def record(*arguments: Any, **named: Any) -> logging.LogRecord:
        made = make(*arguments, **named)
        told = _told(made)
        if (clean := masked(told)) != told:
            made.msg, made.args = clean, ()
        if made.exc_info and made.exc_info[0] is not None:
            said = "".join(traceback.format_exception(*made.exc_info)).rstrip("\n")
            if (clean := masked(said)) != said:
                # A formatter takes `exc_text` where it is set; without `exc_info` nobody writes the traceback anew.
                made.exc_text, made.exc_info = clean, None
        return made

    record.guards = True  # type: ignore[attr-defined]
    return record


def _told(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a message that does not fit its arguments is told by logging itself
        return f"{record.msg} {record.args}"
