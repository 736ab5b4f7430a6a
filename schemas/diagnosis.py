"""Why a verdict may say more about the data than about the candidate: the champion's earlier scores, and the labels.

Part of `GateDecision`. `tasks/assess/diagnosis.py` makes it, `tasks/monitor/label_sources.py` checks the labels. No
ticket text.
"""

from typing import Literal

from schemas.spec import Frozen


class LabelGroup(Frozen):
    """The tickets of one file or week, and how many of their labels a classifier of the other tickets doubts."""

    kind: Literal["file", "week"]
    name: str
    """As in the column `source`, or an ISO week, `2026-W47`."""
    n_checked: int
    n_suspects: int
    share_elsewhere: float
    """Suspects among the checked tickets of all other files or weeks, 0-1."""
    p_chance: float
    """Probability of so many suspects by chance, times the number of files and weeks that were compared; at most 1."""
    disagrees: bool
    """Whether it is named."""

    @property
    def share(self) -> float:
        """Suspects among its checked tickets, 0-1."""
        return self.n_suspects / self.n_checked

    def sentence(self) -> str:
        """Name it, with its share of suspects.

        >>> LabelGroup(kind="file", name="week47.csv", n_checked=800, n_suspects=412, share_elsewhere=0.04,
        ...            p_chance=0.0, disagrees=True).sentence()
        'the labels of week47.csv disagree with the others (412 of 800 are suspect: 52 %, elsewhere 4 %)'
        """
        which = self.name if self.kind == "file" else f"week {self.name}"
        return (
            f"the labels of {which} disagree with the others ({self.n_suspects:,} of {self.n_checked:,} are suspect: "
            f"{100 * self.share:.0f} %, elsewhere {100 * self.share_elsewhere:.0f} %)"
        )


class LabelShift(Frozen):
    """How one label column differs between the tickets that the champion's verdict knew and those since."""

    field: str
    n_known: int
    n_new: int
    distance: float
    """Jensen-Shannon, 0-1."""
    p_chance: float
    """Probability of so large a distance by chance."""
    drifted: bool
    label: str
    """The label whose share changed most; empty for tickets without one."""
    share_known: float
    """Of it, 0-1."""
    share_new: float

    def sentence(self) -> str:
        """Say what changed most.

        >>> LabelShift(field="category", n_known=600, n_new=800, distance=0.31, p_chance=0.0003, drifted=True,
        ...            label="billing", share_known=0.12, share_new=0.48).sentence()
        'category billing has 48 % of the 800 new tickets and 12 % of those that the champion knew'
        """
        known = f"{100 * self.share_known:.0f} %"
        new = f"{100 * self.share_new:.0f} % of the {self.n_new:,} new tickets"
        if not self.label:
            return f"{new} have no {self.field}, and {known} of those that the champion knew"
        return f"{self.field} {self.label} has {new} and {known} of those that the champion knew"


class PastScore(Frozen):
    """The champion at an earlier verdict and now, on the items of both and on those that are new since."""

    is_own: bool
    """The verdict that judged it as a candidate; else a later one, which compared with it."""
    n_items: int
    score: float
    """Mean then, over all items of then."""
    n_common: int
    common_then: float | None
    """Mean then on the common items; null if there are none."""
    common_now: float | None
    n_fresh: int
    """Items of this verdict that were not in that one."""
    fresh: float | None
    """Mean now on these."""


class Diagnosis(Frozen):
    """What is known of champion and labels besides the rules."""

    metric: str = ""
    """Metric of the champion's scores: that of the first rule that compares with it."""
    past: tuple[PastScore, ...] = ()
    """Verdicts on the champion, its own first, then the newest ones."""
    n_past_gone: int = 0
    """Earlier verdicts on it whose scores are no longer in the store."""
    falls: bool = False
    """The champion itself falls on items that are new since the first of `past`, and holds on the common ones."""
    field: str = ""
    """Label column that was checked; empty if none was."""
    groups: tuple[LabelGroup, ...] = ()
    """Files and weeks with most suspects for their size, those that are named first."""
    shifts: tuple[LabelShift, ...] = ()

    @property
    def named(self) -> tuple[LabelGroup, ...]:
        """Files whose labels disagree with the others; without any, weeks."""
        found = [group for group in self.groups if group.disagrees]
        return tuple(group for group in found if group.kind == "file") or tuple(found)

    def causes(self) -> tuple[str, ...]:
        """Return what points to data or labels, one sentence each; empty if nothing does."""
        found = [group.sentence() for group in self.named]
        if self.falls:
            first = self.past[0]
            when = "its own verdict" if first.is_own else "an earlier verdict"
            common = f", and has {_figure(first.common_now)} on the {first.n_common:,} common ones"
            found.append(
                f"the champion itself falls to {_figure(first.fresh)} on the {first.n_fresh:,} items that are new "
                f"since {when}, where {self.metric} was {_figure(first.score)}{common if first.n_common else ''}: "
                "tickets or labels changed, not the candidate"
            )
        return (*found, *(shift.sentence() for shift in self.shifts if shift.drifted and found))

    def notes(self) -> tuple[str, ...]:
        """Return what is worth knowing and points to no cause by itself, one sentence each."""
        gone = f"the champion's scores at {self.n_past_gone} earlier verdicts are no longer in the store"
        causes = self.causes()
        shifts = (shift.sentence() for shift in self.shifts if shift.drifted and shift.sentence() not in causes)
        return (*([gone] if self.n_past_gone else []), *shifts)

    def dated(self) -> tuple[tuple[str, PastScore], ...]:
        """Return `past` with the names of the verdicts."""
        names = ("its own verdict", "the last verdict")
        ages = (0 if each.is_own else len(self.past) - place for place, each in enumerate(self.past))
        return tuple(
            (names[age] if age < len(names) else f"{age} verdicts ago", each)
            for age, each in zip(ages, self.past, strict=True)
        )

    def remedy(self) -> str:
        """Return the next command, which takes the pipeline's name; empty if no label disagrees."""
        if not self.named:
            return ""
        return "`tunegate data suspects` lists them, and how to leave them out"


def _figure(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.3f}"
