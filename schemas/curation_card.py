"""The numbers of a curation card: the content of `card.json`. Written by `tasks/curate/card.py`.

It contains no ticket text. Values of columns are short ones of class `none` (`schemas/tables.py`) that redaction would
not touch; ids of tickets name the largest duplicate clusters only.
"""

from typing import Literal

from pydantic import Field

from schemas.artifacts import RowCounts
from schemas.counted import counted
from schemas.data_checks import CheckResult
from schemas.label_balance import LabelBalance
from schemas.spec import Frozen

CARD_VERSION: Literal[1] = 1
"""Raised when the content changes so that an older card can no longer be compared with."""


class FunnelStep(Frozen):
    """What one step did to the rows."""

    step: str
    rows: RowCounts


class Reason(Frozen):
    """Rows that one step removed under one code."""

    step: str
    outcome: Literal["quarantined", "dropped", "merged"]
    code: str
    n: int


class ValueCounts(Frozen):
    """Tickets with one value, per split."""

    value: str
    train: int
    validation: int
    test: int

    @property
    def n(self) -> int:
        return self.train + self.validation + self.test


class Distribution(Frozen):
    """Tickets per value: the most common ones, all others together, and those without a value."""

    values: tuple[ValueCounts, ...]
    other: ValueCounts
    missing: ValueCounts

    @property
    def n(self) -> int:
        return sum(counts.n for counts in (*self.values, self.other, self.missing))


class Cluster(Frozen):
    """Duplicates of one question. `size` counts the removed tickets and those kept in their place."""

    cluster_id: str
    size: int
    kept_id: str
    """If several tickets were kept, the one that replaces most."""


class Duplicates(Frozen):
    n_clusters: int
    n_merged: int
    sizes: dict[str, int]
    """Size -> number of clusters; large sizes in bands."""
    largest: tuple[Cluster, ...]


class Score(Frozen):
    """One score column over the tickets in which it is a finite number."""

    column: str
    n: int
    quantiles: tuple[float, ...]
    """At `QUANTILES`; each is the value of some ticket."""


QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class ReplyVariety(Frozen):
    """How many different replies the tickets have."""

    n: int
    """Tickets with a reply."""
    n_distinct: int

    @property
    def warning(self) -> str | None:
        """Says that replies are texts from a list; None if they are not."""
        if self.n < MANY_REPLIES or self.n_distinct > self.n * FEW_DISTINCT:
            return None
        what = counted(self.n_distinct, "different reply", "different replies")
        return (
            f"{what} to {self.n:,} tickets: the replies are texts from a list, so a model learns to choose one and a "
            "classifier may do as well"
        )


MANY_REPLIES = 50
FEW_DISTINCT = 0.05
"""At most this share of distinct replies among at least `MANY_REPLIES` is a list of texts."""


class LabelConflicts(Frozen):
    n_checked: int
    n_conflicting: int
    """Tickets whose label other tickets of the same question contradict, or all others make unlikely."""


class PersonalData(Frozen):
    """What redaction replaced."""

    n_tickets: int
    n_values: dict[str, int]
    """Type -> values replaced."""


class PersonalLabels(Frozen):
    """Personal data in one column of labels, before and after redaction."""

    column: str
    n_replaced: int
    """Tickets whose label redaction replaced, of all that it read."""
    n_lost: int
    """Different labels that became equal to another one."""
    n_left: int
    """Tickets of the splits whose label may be personal data: a bare number of 7 to 11 digits, what has the form of a
    name and is on tickets of one customer alone, and, in a pipeline without redaction, what it would replace."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was replaced, and what reports and MLflow will show; without a value."""
        found = []
        if self.n_replaced:
            lost = f", and {counted(self.n_lost, 'value')} became equal to another" if self.n_lost else ""
            tickets = counted(self.n_replaced, "ticket")
            found.append(f"{self.column} of {tickets} was personal data and is now a placeholder{lost}")
        if self.n_left:
            found.append(
                f"{self.column} of {counted(self.n_left, 'ticket')} may be personal data, which reports and MLflow "
                "show: redact the tickets, map another column, or replace it in a `sql` step"
            )
        return tuple(found)


class ColumnShift(Frozen):
    """How much one column has changed since the last card."""

    column: str
    index: float
    """Population stability index."""
    chance: float
    """Its mean if nothing had changed; it depends on the number of tickets only."""
    verdict: Literal["stable", "moderate", "major", "too few tickets"]


class Drift(Frozen):
    """The tickets of this card compared with those of the last one."""

    shifts: tuple[ColumnShift, ...]
    n_previous: int
    new_tickets: float | None
    """Share of the dated tickets that are newer than the newest of the last card, 0-1."""
    new_customers: float | None
    """Share of the customers whose first ticket is newer than that, 0-1."""


class CardNumbers(Frozen):
    """All numbers of one card. Distributions, weeks and scores are those of train, validation and test together."""

    version: Literal[1] = CARD_VERSION
    n_read: int
    n_train: int
    n_validation: int
    n_test: int
    newest: str | None
    """When the newest ticket was written, UTC, ISO 8601."""
    funnel: tuple[FunnelStep, ...]
    reasons: tuple[Reason, ...]
    distributions: dict[str, Distribution]
    weeks: tuple[ValueCounts, ...]
    """ISO weeks from the first to the last, those without a ticket included."""
    n_undated: int
    duplicates: Duplicates
    personal_data: PersonalData | None
    personal_ids: dict[str, int] = Field(default={})
    """Column -> tickets of the splits whose id is an e-mail address or the like; a name, too, if names are redacted."""
    personal_labels: tuple[PersonalLabels, ...] = ()
    """Columns of labels in which there is or was personal data."""
    scores: tuple[Score, ...]
    checks: tuple[CheckResult, ...] = ()
    """Results of the pipeline's `checks`."""
    label_conflicts: LabelConflicts | None
    replies: ReplyVariety | None = None
    encoded: LabelBalance | None = None
    """The labels of the train tickets that `train.max_examples` takes; null without labels."""
    drift: Drift | None
