"""How training sees the labels: tickets per label that are encoded, next to the splits. Part of card and report.

It names no value that redaction would touch (`tasks/curate/cards/label_balance.py`).
"""

from typing import Literal

from schemas.counted import counted
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
