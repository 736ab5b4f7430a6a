"""Scheduled and triggered runs: the sections `schedule` and `notify` of `pipelines.yaml`, and what a tick decided.

The sections do not affect results, so they are not part of what a verdict depends on. `flows/deployments.py` makes
Prefect deployments of `cron` and `triggers`, `tasks/monitor/conditions.py` applies `retrain`.
"""

from datetime import datetime
from typing import Literal, Self
from zoneinfo import available_timezones

from pydantic import Field, field_validator, model_validator

from schemas.spec import Conflict, Frozen, Spec, UnfitError
from schemas.verdicts import Verdict

OPERATIONS = frozenset({"schedule", "notify", "place"})
"""Sections about when and where a pipeline runs and who is notified: they do not affect the verdict."""

_CRON = "allowed are minute 0-59, hour 0-23, day of month 1-31, month 1-12, day of week 0-7, such as `0 5 * * 1`"


class TriggerSpec(Spec):
    """One of `schedule.triggers`: an event, posted to Prefect's `/api/events`, that starts the pipeline like a tick."""

    event: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Name of the event, such as `tickets.arrived`."""
    resource: str | None = Field(default=None, min_length=1, max_length=200)
    """Only events about this `prefect.resource.id`; null for all events of this name."""
    quiet_minutes: float = Field(default=0, ge=0, le=1440)
    """Minutes to wait after the event, since more tickets may follow."""


class DriftSpec(Spec):
    """`schedule.retrain.drift`: retrain sooner if new tickets have drifted. It never starts a run on its own.

    Drift of a kind needs both: the change reaches its limit, and it is as large by chance with a probability of at
    most `significance`.
    """

    min_new: int = Field(default=20, ge=1)
    """Replaces `min_new` of `retrain` if the new tickets have drifted, without a cooldown unless the last verdict was
    HOLD or BLOCK."""
    window: int = Field(default=400, ge=20)
    """Number of the newest new tickets to compare with as many of the newest that the last verdict knew."""
    routing: float = Field(default=0.15, gt=0, le=1)
    """Jensen-Shannon distance of the mix of categories and priorities, 0-1."""
    length: float = Field(default=0.2, gt=0, le=1)
    """Kolmogorov-Smirnov distance of the bodies' lengths, 0-1."""
    vocabulary: float = Field(default=0.2, gt=0, le=1)
    """Jensen-Shannon distance of how many tickets use each of the most common words, 0-1."""
    significance: float = Field(default=0.01, gt=0, lt=0.5)
    """Probability of drift by chance, for all kinds together."""
    seed: int = Field(default=0, ge=0)
    """Of the permutation test."""


class RetrainSpec(Spec):
    """`schedule.retrain`: conditions for a tick to run; else it is a SKIP with a reason. `tunegate run` ignores them.

    New tickets are those of train, validation and test, after redaction and deduplication, that the last candidate
    which met its rules did not know, or knew with other words or labels: a HOLD or BLOCK leaves them new. After one, a
    quarter of `min_new` must also have changed since: tickets that are new, edited or gone.
    """

    min_new: int = Field(default=1, ge=0)
    """Minimum of new tickets for a run."""
    min_held_out: int | Literal["planned"] | None = None
    """Minimum of held-out items; `planned`: as many as the gate's rules need (`tunegate plan`); null for no minimum."""
    min_fresh_held_out: int = Field(default=0, ge=0)
    """Minimum of held-out items that no verdict has used."""
    cooldown_days: float = Field(default=0.0, ge=0, le=365)
    """For this long after a verdict no tick trains."""
    max_wait_days: float | None = Field(default=None, gt=0)
    """With any new tickets, run if the last verdict is this old; null waits for ever."""
    drift: DriftSpec | None = None


class ScheduleSpec(Spec):
    """`schedule`: what starts the pipeline automatically, and when such a tick trains."""

    cron: str | None = Field(
        default=None,
        pattern=r"^\s*(@(hourly|daily|weekly|monthly|yearly)|[0-9A-Za-z*/,#?-]+(\s+[0-9A-Za-z*/,#?-]+){4})\s*$",
    )
    """Five fields: minute, hour, day of month, month, day of week; null for no times."""
    timezone: str = "UTC"
    """IANA name, e.g. Europe/Berlin."""
    overlap: Literal["skip", "queue"] = "skip"
    """For a tick during a run of the pipeline: `skip` drops it, `queue` lets it wait."""
    catch_up: Literal["latest", "none", "all"] = "latest"
    """After an outage, run the latest missed tick, none of them, or all in order."""
    late_minutes: int = Field(default=60, ge=1)
    """With `catch_up: none`: a tick that is later than this counts as missed."""
    resource: str | None = Field(default=None, pattern=r"^([a-z][a-z0-9-]{0,62}|/\S{1,200})$")
    """A shared resource, such as a card: scheduled runs with the same one train one after another; null for none.

    A name counts among the runs of one ledger, the absolute path of a lock file among all runs that name it.
    """
    triggers: tuple[TriggerSpec, ...] = ()
    """Events that start the pipeline."""
    retrain: RetrainSpec = RetrainSpec()
    resume_hold: bool = False
    """If the last verdict is HOLD and there are enough held-out tickets for its candidate's next look
    (`gates.looks.at`), a tick judges that candidate again and trains none; the next tick decides on the training."""

    @field_validator("cron")
    @classmethod
    def _has_a_next_time(cls, value: str | None) -> str | None:
        if value is None:
            return None
        from croniter import CroniterError, croniter

        try:
            croniter(value.strip(), datetime(2000, 1, 1)).get_next()
        except CroniterError as error:
            raise ValueError(f"no time matches {value.strip()!r}: {error}; {_CRON}") from None
        if {"R", "H"} & {field.upper() for field in value.split()}:
            raise ValueError(f"{value.strip()!r} is random or hashed, which Prefect does not support; {_CRON}")
        return value

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"unknown time zone {value!r}; IANA names such as Europe/Berlin are allowed")
        return value

    @model_validator(mode="after")
    def _times_have_a_cron(self) -> Self:
        changed = self.model_dump(include={"timezone", "catch_up", "late_minutes"}, exclude_defaults=True)
        if self.cron is None and changed:
            hint = 'set schedule.cron, such as "0 5 * * 1", or remove it'
            raise UnfitError([Conflict(f"{key} needs a cron", at=(key,), hint=hint) for key in changed])
        return self

    @model_validator(mode="after")
    def _all_are_queued(self) -> Self:
        if self.catch_up == "all" and self.overlap == "skip":
            raise ValueError("`catch_up: all` needs `overlap: queue`: missed ticks come at once, and would be dropped")
        return self


def schedule_advice(schedule: ScheduleSpec) -> list[str]:
    """Return what a ledger that is a file of one home folder cannot do for this schedule, one sentence each."""
    resource = schedule.resource
    if resource is None or resource.startswith("/"):
        return []
    return [
        f"`schedule.resource: {resource}` excludes only runs of this home folder's ledger; if other projects use it as "
        f"well, name one lock file for all, such as /srv/locks/{resource}.lock"
    ]


class NotifySpec(Spec):
    """`notify`: whom to notify when a run ends. No ticket text is sent, and a failing hook changes no verdict."""

    webhook_env: str | None = Field(default=None, pattern=r"^[A-Z_][A-Z0-9_]*$")
    """Environment variable with the address to post to; the address itself is a secret and in no file."""
    prefect_block: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,100}/[a-z0-9-]{1,100}$")
    """A notification block on your Prefect server, `type/name`: `sendgrid-email/on-call` sends e-mail."""
    on: tuple[Verdict | Literal["DONE"], ...] = Field(
        default=("PROMOTE", "UNCOMPARED", "HOLD", "BLOCK", "ERROR"), min_length=1
    )
    """Verdicts to notify of; ERROR includes runs that failed, DONE is a whole run of data alone."""

    @model_validator(mode="after")
    def _has_a_target(self) -> Self:
        if self.webhook_env is None and self.prefect_block is None:
            raise ValueError("give `webhook_env`, `prefect_block` or both")
        return self


Cause = Literal["schedule", "event", "person"]
"""What caused the tick: the clock, an event, or `tunegate ops tick`."""
Code = Literal[
    "missed", "superseded", "overlap", "unchanged", "look", "cooldown", "held_out", "fresh", "few", "tried", "first",
    "enough", "drift", "waited", "forgotten",
]  # fmt: skip
"""`missed` to `tried` are SKIP (`look`: a held candidate is judged again instead, or has too few items for that);
`first`, `enough`, `drift` (fewer are enough), `waited` and `forgotten` (the champion learned from a customer who was
forgotten since) are RUN."""


class Arrivals(Frozen):
    """Curated tickets, compared with those that the last candidate which met its rules knew."""

    snapshot_id: str
    """The state of the tickets, as in `warehouse.duckdb`."""
    n_curated: int
    n_new: int
    """Tickets that it did not know; a newer duplicate of a known one is not new. All, if there was none."""
    n_edited: int
    """Known tickets with other words or labels."""
    n_held_out: int
    n_fresh_held_out: int
    """Held-out tickets that were not held out at the last verdict."""
    n_changed: int | None = None
    """New, edited and gone tickets since the last verdict, if that was HOLD or BLOCK; else null."""


class Shift(Frozen):
    """One kind of change between the new tickets and the known ones."""

    kind: Literal["routing", "length", "vocabulary"]
    distance: float
    """0-1."""
    limit: float
    p_chance: float
    """Probability of a change this large by chance."""
    drifted: bool


class Decision(Frozen):
    """What the tick decided."""

    run: bool
    code: Code
    reason: str
    expected: str | None = None
    """Of a SKIP: when a tick is expected to run, UTC, ISO 8601; null if unknown."""
    arrivals: Arrivals | None = None
    """Null if it was decided before reading the tickets."""
    shifts: tuple[Shift, ...] = ()
    warnings: tuple[str, ...] = ()
    """What a person should look at: a certificate of the champion that no longer holds."""
    n_needed: int | None = None
    """New tickets that were needed."""
    n_held_out_needed: int | None = None
