"""The times of a schedule, by the same arithmetic as Prefect's server uses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from schemas.schedule import ScheduleSpec

_ALIASES = {"@yearly": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0", "@daily": "0 0 * * *",
            "@hourly": "0 * * * *"}  # fmt: skip


def next_tick(schedule: ScheduleSpec, *, after: datetime) -> datetime:
    """The first time of the schedule later than `after`, UTC.

    >>> from datetime import UTC, datetime
    >>> monday = ScheduleSpec(cron="0 5 * * 1", timezone="Europe/Berlin")
    >>> next_tick(monday, after=datetime(2026, 6, 1, 3, tzinfo=UTC)).isoformat()
    '2026-06-08T03:00:00+00:00'
    """
    from prefect._vendor.croniter.croniter import croniter

    expression = _ALIASES.get(schedule.cron.strip(), schedule.cron.strip())
    local = after.astimezone(ZoneInfo(schedule.timezone))
    found: datetime = croniter(expression, local).get_next(datetime)  # type: ignore[no-untyped-call]
    return found.astimezone(UTC)


def tick_for(schedule: ScheduleSpec | None, moment: datetime) -> datetime:
    """The first time of the schedule at or after the moment; without a schedule the moment itself."""
    return moment if schedule is None else next_tick(schedule, after=moment - timedelta(seconds=1))
