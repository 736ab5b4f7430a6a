"""The present, for everything that is decided by it: ticks, cooldowns, the times in the ledger.

It is the machine's clock unless `TUNEGATE_NOW` says otherwise: `make demo-schedule` and the tests play weeks in minutes
by it. Durations and locks do not ask here, and nothing is ordered by time (the ledger counts).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime

from schemas.errors import ConfigError

VARIABLE = "TUNEGATE_NOW"


def present(environ: Mapping[str, str] = os.environ) -> datetime:
    """This moment, UTC; what `TUNEGATE_NOW` holds, if it holds something.

    Raises:
        ConfigError: TG0103, it is no ISO 8601 time with a zone.

    >>> present({"TUNEGATE_NOW": "2026-06-08T05:00:00+02:00"}).isoformat()
    '2026-06-08T03:00:00+00:00'
    """
    told = environ.get(VARIABLE)
    if not told:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(told)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
    except ValueError:
        raise ConfigError(
            f"{VARIABLE} should be a time with its zone, such as 2026-06-08T05:00:00Z, got {told[:40]!r}",
            code="TG0103",
            where=VARIABLE,
            hint="unset it to use the machine's clock",
        ) from None
    return moment.astimezone(UTC)
