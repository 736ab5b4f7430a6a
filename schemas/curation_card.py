"""The numbers of a curation card: the content of `card.json`. Written by `tasks/curate/card.py`.

It contains no ticket text. Values of columns are short ones of class `none` (`schemas/tables.py`) that redaction would
not touch; ids of tickets name the largest duplicate clusters only.
"""

from typing import Literal

from pydantic import Field

from schemas.artifacts import RowCounts
from schemas.counted import counted
from schemas.data_checks import CheckResult
from schemas.spec import Frozen

FEW = 5
"""Encoded tickets below which a label is hardly learned: about what a few-shot prompt shows of one."""


class LabelCounts(Frozen):
    """Tickets with one label."""

    value: str
    """Empty for those without a label."""
    train: int
    used: int
    """Of train, those that are encoded."""
    validation: int
    test: int


class LabelBalance(Frozen):
    """The labels of what is encoded."""

    column: str
    """The ticket column: `evaluate.routing_field`."""
    n_train: int
    n_used: int
    chosen: Literal["all", "newest", "drawn"]
    """How they were chosen: all that can be encoded, the newest, or by a stratified draw."""
    oldest: str | None = None
    """Time of the oldest of them if the newest were chosen, UTC, ISO 8601."""
    values: tuple[LabelCounts, ...]
    """The commonest first; labels that are not named are counted together in `other`."""
    other: LabelCounts
    missing: LabelCounts
    unseen: tuple[str, ...]
    """Labels of validation and test that no encoded ticket has; those that may be named."""
    n_unseen_labels: int
    n_unseen_tickets: int
    """Tickets of validation and test with such labels."""
    n_rare: int = 0
    """Labels with at least one, but fewer than `FEW` encoded tickets."""

    @property
    def rows(self) -> tuple[tuple[str, LabelCounts], ...]:
        """A name and the counts of each row that has tickets."""
        listed = [(counts.value, counts) for counts in self.values]
        listed += [("other values", self.other), ("no value", self.missing)]
        return tuple((name, each) for name, each in listed if each.train or each.validation or each.test)

    @property
    def sentence(self) -> str:
        """What was chosen, and what that leaves out."""
        n_left = self.n_train - self.n_used
        if not n_left:
            start = "All " if self.n_train > 1 else ""
            return f"{start}{counted(self.n_train, 'train ticket is', 'train tickets are')} encoded."
        start = f"{self.n_used:,} of {self.n_train:,} train tickets are encoded"
        if self.chosen == "newest":
            return f"{start}: the newest, from {str(self.oldest)[:10]} on. {n_left:,} are left out, most of them older."
        if self.chosen == "drawn":
            return f"{start}: drawn by a seeded hash, with a share of each {self.column}. {n_left:,} are left out."
        return f"{start}. The other {n_left:,} are too long, or cannot be encoded."

    @property
    def warning(self) -> str | None:
        """What the model cannot learn from these tickets; None if nothing is missing."""
        found = [each for each in (self._unseen(), self._rare()) if each]
        return "; ".join(found) or None

    def _rare(self) -> str:
        if not self.n_rare:
            return ""
        what = counted(self.n_rare, "label has", "labels have")
        return f"{what} fewer than {FEW} encoded tickets, too few to learn from ({self.column})"

    def _unseen(self) -> str:
        if not self.n_unseen_labels:
            return ""
        named = ", ".join(self.unseen) + (" and others" if self.n_unseen_labels > len(self.unseen) else "")
        what, whose = counted(self.n_unseen_labels, "label"), counted(self.n_unseen_tickets, "ticket")
        return (
            f"{what} of {whose} in validation and test: none is in what is encoded for training "
            f"({self.column}: {named.removeprefix(' and ')})"
        )


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


class Corrections(Frozen):
    """What became of people's corrections."""

    n_applied: int
    n_stale: int
    """The source has another value by now."""
    n_unknown: int
    """There is no such ticket."""
    n_corrected: int
    """Rows of which a field was set."""
    n_dropped: int
    """Rows that people dropped."""

    @property
    def sentence(self) -> str:
        """The same in a sentence."""
        said = (
            f"{counted(self.n_applied, 'correction')} of people applied: {counted(self.n_corrected, 'row')} corrected, "
            f"{self.n_dropped:,} dropped"
        )
        left = [f"{self.n_stale:,} did not, since the source has another value"] if self.n_stale else []
        left += [f"{self.n_unknown:,} did not, since there is no such ticket"] if self.n_unknown else []
        return "; ".join([said, *left])


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
    corrections: Corrections | None = None
    """Null without `curate.corrections`."""
    replies: ReplyVariety | None = None
    encoded: LabelBalance | None = None
    """The labels of the train tickets that `train.max_examples` takes; null without labels."""
    drift: Drift | None
