"""The day of `tunegate run --as-of`: only tickets created by its end, UTC, the champion of that moment, no alias moved.

What is known of the past is when tickets were created, what the ledger recorded and when people labelled answers. Later
verdicts and labels are left out, as is agents' feedback; edits and deletions of a ticket, and redaction, are those of
today.
"""

import re
from datetime import UTC, date
from pathlib import Path

from flows.workspace.clock import present
from schemas.errors import ConfigError
from schemas.file_reading import Source
from tasks.curate.extract import day_after
from tasks.sources.registry import ingested, kind_of


def check_as_of(text: str) -> str:
    """Return the day.

    Raises:
        ConfigError: TG0103, it is no date like 2026-05-31, or not over yet in UTC.
    """
    day = day_of(text)
    today = present().astimezone(UTC).date()
    if day is None or day >= str(today):
        why = "is no date" if day is None else "is not over yet (UTC)"
        raise ConfigError(
            f"{text!r} {why}; allowed: a day before {today}, like 2026-05-31", code="TG0103", where="--as-of",
            hint="tickets created by the end of that day, UTC, are used; without --as-of all are",
        )  # fmt: skip
    return text


def day_of(text: str) -> str | None:
    """Return the text if it is a day; else None.

    >>> day_of("2026-05-31"), day_of("2026-02-30"), day_of("20260531"), day_of("2026-W22-7")
    ('2026-05-31', None, None, None)
    """
    try:
        # `fromisoformat` alone also reads the last two.
        return str(date.fromisoformat(text)) if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) else None
    except ValueError:
        return None


def end_of(day: str) -> str:
    """The moment at which the day is over, as the ledger writes times.

    >>> end_of("2026-05-31")
    '2026-06-01T00:00:00+00:00'
    """
    return day_after(day).replace(tzinfo=UTC).isoformat(timespec="seconds")


def check_ingested(source: Source, landed: Path, day: str) -> str:
    """Check that a remote source was ingested after the day, since a look at the past ingests nothing.

    Returns:
        What was ingested, for the console.

    Raises:
        ConfigError: TG0159, it was not: tickets of that day may be missing.
    """
    here, kind = ingested(source, landed=landed), kind_of(source)
    if here is None or here.finished_at < end_of(day):
        until = "nothing is ingested yet" if here is None else f"it was last ingested at {here.finished_at}"
        raise ConfigError(
            f"{until}, so tickets created by {day} may be missing", code="TG0159", where=kind.name,
            hint="run the pipeline once without --as-of; --until curate is enough",
        )  # fmt: skip
    return kind.summary(source, here)
