"""When a pipeline runs by itself: the sections `schedule`, `triggers`, `retrain` and `notify` of `pipelines.yaml`.

None of them changes what a run makes of its tickets, so none of them is part of what decides a verdict.
`flows/deployments.py` turns the first two into Prefect deployments, `tasks/monitor/conditions.py` decides by the third.
"""

from __future__ import annotations

from typing import Literal, Self
from zoneinfo import available_timezones

from pydantic import Field, field_validator, model_validator

from schemas.spec import Spec
from schemas.verdicts import Verdict

OPERATIONS = frozenset({"schedule", "triggers", "retrain", "notify", "place"})
"""Sections that say when and where a pipeline runs and who hears of it: two runs that differ in these alone have one
verdict."""


class ScheduleSpec(Spec):
    """`schedule`: when the pipeline is started by itself."""

    cron: str = Field(
        pattern=r"^\s*(@(hourly|daily|weekly|monthly|yearly)|[0-9A-Za-z*/,#?-]+(\s+[0-9A-Za-z*/,#?-]+){4})\s*$"
    )
    """Five fields: minute, hour, day of month, month, day of week."""
    timezone: str = "UTC"
    """IANA name, e.g. Europe/Berlin."""
    overlap: Literal["skip", "queue"] = "skip"
    """A tick that comes while a run of the pipeline is in progress: `skip` leaves it out, `queue` lets it wait."""
    catch_up: Literal["latest", "none", "all"] = "latest"
    """After a time in which nothing could run: the newest missed tick alone, none of them, or all of them in turn."""
    late_minutes: int = Field(default=60, ge=1)
    """With `catch_up: none`: a tick that starts later than this was missed."""
    resource: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9-]{0,62}$")
    """Something that pipelines share, such as a card: those that name the same one train in turn; null for none."""

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"unknown time zone {value!r}; IANA names such as Europe/Berlin are allowed")
        return value

    @model_validator(mode="after")
    def _all_are_queued(self) -> Self:
        if self.catch_up == "all" and self.overlap == "skip":
            raise ValueError("`catch_up: all` needs `overlap: queue`: missed ticks come at once, and would be skipped")
        return self


class TriggerSpec(Spec):
    """One of `triggers`: an event, posted to Prefect's `/api/events`, that starts the pipeline as a tick does."""

    event: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Name of the event, such as `tickets.arrived`."""
    resource: str | None = Field(default=None, min_length=1, max_length=200)
    """Only events about this `prefect.resource.id`; null for all of the name."""
    quiet_minutes: float = Field(default=0, ge=0, le=1440)
    """Wait so long after the event: more tickets may be coming."""


class DriftSpec(Spec):
    """`retrain.drift`: tickets that have changed are learned from earlier. It never starts a run by itself.

    Of each kind of change both must be true: it is as large as its limit, and chance alone makes it as large in at
    most `significance` of the cases.
    """

    min_new: int = Field(default=20, ge=1)
    """Takes the place of `retrain.min_new`, and there is no cooldown, when the new tickets have drifted."""
    window: int = Field(default=400, ge=20)
    """New tickets compared, the newest of them, with as many of the newest that the last verdict knew."""
    routing: float = Field(default=0.15, gt=0, le=1)
    """Jensen-Shannon distance of the mix of categories and priorities, 0-1."""
    length: float = Field(default=0.2, gt=0, le=1)
    """Kolmogorov-Smirnov distance of the bodies' lengths, 0-1."""
    vocabulary: float = Field(default=0.2, gt=0, le=1)
    """Jensen-Shannon distance of how many tickets use each of the commonest words, 0-1."""
    significance: float = Field(default=0.01, gt=0, lt=0.5)
    """Share of the cases for all kinds together."""
    seed: int = Field(default=0, ge=0)
    """Of the permutations that tell drift from chance."""


class RetrainSpec(Spec):
    """`retrain`: what a tick asks before it trains; a tick that is not worth a run is a SKIP with its reason.

    `tunegate run` asks none of it. New are tickets of train, validation and test, after redaction and deduplication,
    that the last verdict did not know, or knew with other words or labels.
    """

    min_new: int = Field(default=1, ge=0)
    """New tickets that a run is worth."""
    min_held_out: int | Literal["planned"] | None = None
    """Held-out items that the gate would have; `planned`: as its rules need (`tunegate plan`); null asks nothing."""
    min_fresh_held_out: int = Field(default=0, ge=0)
    """Of these, items that no verdict has seen."""
    cooldown_days: float = Field(default=0.0, ge=0, le=365)
    """After a verdict no tick trains for so long."""
    max_wait_days: float | None = Field(default=None, gt=0)
    """With new tickets, however few, a run is worth it when the last verdict is this old; null waits for ever."""
    drift: DriftSpec | None = None


class NotifySpec(Spec):
    """`notify`: who is told how a run ended. No ticket text is sent, and what the hook does changes no verdict."""

    webhook_env: str | None = Field(default=None, pattern=r"^[A-Z_][A-Z0-9_]*$")
    """Environment variable with the address that is posted to; the address itself is a secret and in no file."""
    prefect_block: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,100}/[a-z0-9-]{1,100}$")
    """A notification block on your Prefect server, `type/name`: `sendgrid-email/on-call` sends e-mail."""
    on: tuple[Verdict, ...] = Field(default=("PROMOTE", "HOLD", "BLOCK", "ERROR"), min_length=1)
    """Verdicts that are told; ERROR also stands for a run that failed."""

    @model_validator(mode="after")
    def _somebody_is_told(self) -> Self:
        if self.webhook_env is None and self.prefect_block is None:
            raise ValueError("give `webhook_env`, `prefect_block` or both")
        return self
