"""The current time, for everything that depends on it: ticks, cooldowns, the times in the ledger.

It is the machine's clock unless `TUNEGATE_NOW` is set, with which tests play through weeks in minutes.
Durations and locks do not use it, and nothing is ordered by time (the ledger counts).
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime

from schemas.errors import ConfigError

VARIABLE = "TUNEGATE_NOW"


def present(environ: Mapping[str, str] = os.environ) -> datetime:
    """Return the current time in UTC, or `TUNEGATE_NOW` if that is set.

    Raises:
        ConfigError: TG0103, `TUNEGATE_NOW` is not an ISO 8601 time with a zone.

    >>> present({"TUNEGATE_NOW": "2026-06-08T05:00:00+02:00"}).isoformat()
    '2026-06-08T03:00:00+00:00'
    """
    value = environ.get(VARIABLE)
    if not value:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
    except ValueError:
        raise ConfigError(
            f"{VARIABLE} should be a time with its zone, such as 2026-06-08T05:00:00Z, got {value[:40]!r}",
            code="TG0103",
            where=VARIABLE,
            hint="unset it to use the machine's clock",
        ) from None
    return moment.astimezone(UTC)


def now() -> str:
    """Return the current time, UTC, ISO 8601 to the second; for people, never for ordering."""
    return present().isoformat(timespec="seconds")
