"""What each of our processes does first: keep its files private to its user, and secrets out of its output."""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from schemas.secrets import know_secrets, masked
from tasks.tickets.visible import visible

PRIVATE_UMASK = 0o077
"""Files 0600, folders 0700: no other user may read ticket text, weights or the ledger."""


def guard_process(environ: Mapping[str, str] = os.environ) -> None:
    """Set the umask, remember the environment's secrets and keep them out of every log. Idempotent."""
    os.umask(PRIVATE_UMASK)
    know_secrets(environ)
    guard_logs()


def guard_logs() -> None:
    """Keep secrets out of every logger of this process, with whatever handlers it has, now or later."""
    # A filter on the root logger would not see what other loggers pass to their own handlers, and one on each handler
    # would miss those that Prefect adds later. So the records themselves are created without secrets.
    factory = logging.getLogRecordFactory()
    if not getattr(factory, "guards", False):
        logging.setLogRecordFactory(_guarded(factory))


def print_traceback(error: BaseException) -> None:
    """Print the traceback to stderr, without secrets and control characters."""
    sys.stderr.write(visible(masked("".join(traceback.format_exception(error)))))


def _guarded(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def record(*arguments: Any, **named: Any) -> logging.LogRecord:
        made = make(*arguments, **named)
        message = _format_message(made)
        if (clean := masked(message)) != message:
            made.msg, made.args = clean, ()
        if made.exc_info and made.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*made.exc_info)).rstrip("\n")
            if (clean := masked(text)) != text:
                # A formatter uses `exc_text` if it is set; without `exc_info` it does not format the traceback again.
                made.exc_text, made.exc_info = clean, None
        return made

    record.guards = True  # type: ignore[attr-defined]
    return record


def _format_message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # logging itself reports a message that does not fit its arguments
        return f"{record.msg} {record.args}"
