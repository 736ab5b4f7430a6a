"""What agents did with the champion's suggestions: the section `feedback` of `pipelines.yaml`, and a line of feedback.

`tunegate model feedback` ingests the lines (`tasks/monitor/feedback.py`).
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.spec import Frozen, Spec

Outcome = Literal["accepted", "edited", "rejected"]


class FeedbackSpec(Spec):
    """`feedback`: learn from what agents did with suggestions, and judge it."""

    learn: bool = True
    """An agent's edited text replaces the ticket's reply."""
    own_answers: Literal["keep", "drop"] = "keep"
    """Tickets whose suggestion was accepted unchanged: `drop` does not train on them, since a model wrote the reply."""
    counts: tuple[Outcome, ...] = Field(default=("accepted", "edited"), min_length=1)
    """Outcomes that count as acceptance."""
    min_acceptance: Annotated[float, Field(gt=0, lt=1)] | None = None
    """A candidate whose suggestions were accepted less often, at the confidence, is BLOCK; null only reports."""
    min_suggestions: int = Field(default=50, ge=1)
    """With fewer suggestions a version's rate is only reported."""


class FeedbackLine(Frozen):
    """One line of a feedback file, a JSON object; other keys are refused."""

    ticket_id: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    version: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
    """Version of the model that made the suggestion."""
    outcome: Outcome
    at: datetime
    """When the agent decided; with a time zone, or UTC. Of two lines about one suggestion, the later counts."""
    reply: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = None
    """The text that the agent sent instead; only with `edited`."""


class Acceptance(Frozen):
    """How often the suggestions of one version were accepted."""

    version: str
    n: int
    n_accepted: int
    lower: float
    """One-sided confidence bounds of the rate, 0-1 (Clopper-Pearson)."""
    upper: float

    @property
    def rate(self) -> float:
        return self.n_accepted / self.n


class LiveQuality(Frozen):
    """What the gate knows of suggestions: the acceptance of each version, and the versions to judge."""

    spec: FeedbackSpec
    versions: tuple[Acceptance, ...] = ()
    candidate: str | None = None
    """Version of the judged model, if it was registered before; null for a new one."""
    champion: str | None = None
