"""Wrong references: how many there are, and what a tolerated loss is worth with them. Numbers only.

Where the reference is wrong, a right answer counts as wrong, and a wrong one may count as right. With a share e of
wrong references a true loss measures at least 1 - 2 e times as large, and that much where the wrong reference is what
the other model answers, as with two labels: so a margin tolerates a larger true loss than it says. Used for the
verdict's warning (`tasks/assess/gate.py`) and by `init` for its margin (`tasks/start/champion_rule.py`).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tasks.assess.pass_chance import Comparison, pass_chances

SURE = 0.25
"""Share of the tickets of which a classifier is surest: if it contradicts a label there, the label is mostly wrong.
With 0, 5, 10 and 20 % wrong labels it contradicts 0, 4, 10 and 19 % on Bitext (11 labels; right in 76 to 100 % of all)
and 3, 12, 15 and 26 % on banking77 (77 labels; right in 50 to 69 %)."""
LEAST_COUNTED = 50
"""Tickets or answers without which a share is not estimated."""
LEAST_WRONG = 0.04
"""Share of contradicted labels below which they may be the classifier's own errors, as on banking77."""
WARN_FROM = 1.25
"""Multiple of the error probability that a true loss of the margin must have of passing before the verdict warns."""


@dataclass(frozen=True)
class WrongShare:
    """An estimate of the share of references that are wrong."""

    rate: float
    """0-1."""
    basis: str
    """What it was counted from, in words."""


def count_contradicted(confidence: ArrayLike, agrees: ArrayLike) -> tuple[int, int]:
    """The number of tickets of which a classifier that has not seen them is surest, and of these whose label it
    contradicts.

    >>> count_contradicted([0.9, 0.5, 0.8, 0.1, 0.2, 0.3, 0.1, 0.2], [True, False, False, True, True, True, True, True])
    (2, 1)

    Args:
        confidence: How much likelier its first label is than its second, of each ticket.
        agrees: Whether its first label is the ticket's.
    """
    sure = np.asarray(confidence, np.float64)
    surest = np.argsort(-sure, kind="stable")[: int(SURE * len(sure))]
    return len(surest), int((~np.asarray(agrees, np.bool_)[surest]).sum())


def share_of_labels(n_sure: int, n_contradicted: int) -> WrongShare | None:
    """The share of wrong labels by `count_contradicted`; None with too few tickets, or of which none need be wrong.

    >>> share_of_labels(500, 15), share_of_labels(500, 50).rate
    (None, 0.1)
    """
    if n_sure < LEAST_COUNTED or n_contradicted < LEAST_WRONG * n_sure:
        return None
    basis = f"a classifier contradicts {n_contradicted:,} of the {n_sure:,} labels of which it is surest"
    return WrongShare(n_contradicted / n_sure, basis)


def share_of_raters(n_pairs: int, n_differ: int) -> WrongShare | None:
    """The share of wrong choices if two raters, who err as often, differ so often; None with too few answers.

    >>> found = share_of_raters(200, 36)
    >>> round(found.rate, 3), found.basis
    (0.1, 'two raters differ on 36 of 200 answers')

    Source: of two raters with error rate e who err independently, 2 e (1 - e) differ.
    """
    if n_pairs < LEAST_COUNTED:
        return None
    rate = (1 - math.sqrt(max(0.0, 1 - 2 * n_differ / n_pairs))) / 2
    return WrongShare(rate, f"two raters differ on {n_differ:,} of {n_pairs:,} answers")


def measured_share(rate: float) -> float:
    """What is left of a true difference, at the least.

    >>> measured_share(0.1), measured_share(0.6)
    (0.8, 0.0)
    """
    return max(0.0, 1 - 2 * rate)


def passes_at_margin(comparison: Comparison, rate: float) -> float:
    """The chance that a candidate passes whose true loss is the margin, with this share of wrong references."""
    return pass_chances(comparison, (-measured_share(rate) * comparison.change.margin,))[0]


def warn_of(compared: Iterable[tuple[str, Comparison]], wrong: WrongShare | None) -> str:
    """A sentence on the first rule that passes a true loss of its margin too often; empty if none does.

    Args:
        compared: Rule in words, and what it compares, of those whose references are so often wrong.
    """
    if wrong is None:
        return ""
    for rule, comparison in compared:
        margin, chance = comparison.change.margin, passes_at_margin(comparison, wrong.rate)
        if margin and chance > WARN_FROM * comparison.alpha:
            fits = margin * measured_share(wrong.rate)
            advice = f"a margin of {fits:.2g} allows for it" if fits else "no margin allows for that"
            return (
                f"About {100 * wrong.rate:.0f} % of the references are wrong ({wrong.basis}), so that a loss may "
                f"measure {measured_share(wrong.rate):.2g} times as large: `{rule}` passes a true loss of {margin:g} "
                f"in {100 * chance:.0f} % instead of {100 * comparison.alpha:.0f} %; {advice}."
            )
    return ""
