"""What agents did with the champion's suggestions: the section `feedback` of `pipelines.yaml`, and a line of feedback.

`tunegate model feedback` ingests the lines (`tasks/monitor/feedback.py`).
"""

from datetime import date, datetime
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
    certificate_error: float = Field(default=0.05, gt=0, lt=1)
    """Chance that a certificate of `evaluate.abstain` which holds is ever reported as broken, for each version, however
    often its routed tickets are looked at."""


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
    action: Literal["route", "review"] | None = None
    """As in the answer's object `tunegate`."""
    right: bool | None = None
    """Was the label of the certified field right? Null if that is not known."""


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


class RoutedWeek(Frozen):
    """How often the labels of routed tickets were right in one week."""

    monday: date
    """Its first day, UTC."""
    n: int
    n_right: int
    lower: float
    """One-sided confidence bounds of the share, 0-1 (Clopper-Pearson)."""
    upper: float


class RoutedVersion(Frozen):
    """What is known of a version's routed tickets, and whether its certificate still holds."""

    version: str
    target: float
    """What is certified: the least share of right labels, 0-1."""
    n: int
    n_right: int
    evidence: float
    """Against the certificate, at the worst moment so far; 1 is none."""
    holds: bool
    """False if the evidence has ever reached one over `feedback.certificate_error`."""
    weeks: tuple[RoutedWeek, ...]

    def warning(self) -> str:
        """What to say of a certificate that no longer holds; empty if it holds.

        >>> RoutedVersion(version="3", target=0.95, n=50, n_right=41, evidence=80, holds=False, weeks=()).warning()
        'the certificate of version 3 no longer holds: 41 of 50 routed tickets were right, 0.95 of them should be'
        """
        if self.holds:
            return ""
        were = f"{self.n_right} of {self.n} routed tickets were right, {self.target:.4g} of them should be"
        return f"the certificate of version {self.version} no longer holds: {were}"


class LiveQuality(Frozen):
    """What the gate knows of suggestions: the acceptance of each version, and the versions to judge."""

    spec: FeedbackSpec
    versions: tuple[Acceptance, ...] = ()
    candidate: str | None = None
    """Version of the judged model, if it was registered before; null for a new one."""
    champion: str | None = None
