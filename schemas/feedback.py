"""What agents did with the champion's suggestions: the section `feedback` of `pipelines.yaml`, and one line of it.

`tunegate model feedback` takes the lines in (`tasks/monitor/feedback.py`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.spec import Spec

Outcome = Literal["accepted", "edited", "rejected"]


class FeedbackSpec(Spec):
    """`feedback`: what agents did with suggestions is learned from, and judged."""

    learn: bool = True
    """An agent's edited text takes the place of the ticket's reply."""
    own_answers: Literal["keep", "drop"] = "keep"
    """Tickets whose suggestion was accepted as it was: `drop` trains on none of them, for their reply is a model's."""
    counts: tuple[Outcome, ...] = Field(default=("accepted", "edited"), min_length=1)
    """Outcomes that count as acceptance."""
    min_acceptance: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Floor: a candidate whose own suggestions were surely accepted less often is BLOCK; null only reports."""
    min_suggestions: int = Field(default=50, ge=1)
    """With fewer suggestions a version's rate is reported and decides nothing."""


class FeedbackLine(BaseModel):
    """One line of a feedback file: JSON, other keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ticket_id: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    version: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
    """Version of the model that made the suggestion."""
    outcome: Outcome
    at: datetime
    """When the agent decided; with a time zone, or UTC. Of two lines on one suggestion the later counts."""
    reply: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = None
    """What the agent sent instead; only with `edited`."""


class Acceptance(BaseModel):
    """How often the suggestions of one version were accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    n: int
    n_accepted: int
    lower: float
    """One-sided confidence bounds of the rate, 0-1 (Clopper-Pearson)."""
    upper: float

    @property
    def rate(self) -> float:
        return self.n_accepted / self.n


class LiveQuality(BaseModel):
    """What the gate is told of suggestions: how those of each version were taken, and which versions matter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: FeedbackSpec
    versions: tuple[Acceptance, ...] = ()
    candidate: str | None = None
    """Version of the very model that is judged, where it was registered before; null for a new one."""
    champion: str | None = None
