"""What a run should do: one form for the command line, a flow run's parameters, a tick and a worker."""

from datetime import UTC, datetime
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from schemas.schedule import Cause

Stage = Literal["curate", "finetune", "assess", "release"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class RunRequest(BaseModel):
    """What a run should do. Prefect stores and shows it: it holds references, no tickets and no secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    again: bool = False
    """Decide again even if nothing has changed since the last verdict."""
    until: Stage = "release"
    """Last stage to run."""
    tick: Cause | None = None
    """What started the run, which then decides first whether it is worth running; null runs in any case."""
    due: datetime | None = None
    """The tick's scheduled time; null for an event or a person."""
    as_of: str | None = None
    """Only tickets created by the end of this day, UTC; such a run moves no alias and publishes no tables."""
    given: tuple[str, ...] = ()
    """Settings of this run alone, such as `train.max_examples=200`. Not for deployments."""
    resume: str | None = None
    """Run whose candidate got HOLD and is judged again with more held-out items; null trains one."""
    wait_s: float = 0.0
    """Seconds to wait for another run of the pipeline."""
    crashed: str | None = None
    """The flow run that this one repeats, set by the automation; it is repeated once."""
    run_id: str | None = None
    """The run that a worker makes a stage for."""
    handover: str | None = None
    """sha256 of what that run has handed over."""

    @property
    def due_utc(self) -> str:
        """The scheduled time as in the ledger; empty if there is none."""
        return "" if self.due is None else self.due.astimezone(UTC).isoformat(timespec="seconds")

    @property
    def limits_examples(self) -> bool:
        """Whether the number of examples is set for this run alone, as by `tunegate try`."""
        return any(each.partition("=")[0] == "train.max_examples" for each in self.given)

    def reaches(self, stage: Stage) -> bool:
        """Return whether the run includes the stage."""
        return STAGES.index(stage) <= STAGES.index(self.until)


ANY_CASE = RunRequest()
"""Run the whole pipeline if anything has changed."""
