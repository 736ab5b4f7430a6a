"""Choose how a proposed gate compares with the champion: the widest margin that keeps regressions rare for a year.

A year has 52 candidates, so what one verdict promotes by chance happens many times. By simulation over five worlds
(`make bench-gates`), at most 0.2 regressions of more than a point a year are promoted if candidates that are one, two
and three points worse pass in at most `REGRESSIONS`, on average.
"""

from schemas.gates import ChangeThreshold, PowerSpec
from tasks.assess.pass_chance import Comparison, pass_chances
from tasks.assess.power import ASSUMED_DISCORDANCE
from tasks.assess.wrong_references import measured_share

REGRESSIONS = 0.0095
LOSSES = (-0.01, -0.02, -0.03)
MARGINS = tuple(step / 2000 for step in range(40, 0, -1))
"""From 0.02 down. A wider one decides nothing: with items enough to show it, the measured gain is what counts."""
CONFIDENCES = (0.95, 0.96, 0.97, 0.98, 0.99, 0.995)


def choose_comparison(
    n_items: int, *, continuous: bool, wrong_references: float = 0.0
) -> tuple[ChangeThreshold, float]:
    """Return the comparison for this number of items, and the confidence of the gate.

    Mode refresh with the widest margin that will do, assuming the discordance or spread that a plan assumes. With about
    150 items or fewer none does, so that it is improve, and with the fewest at more than the usual confidence.

    >>> [choose_comparison(n, continuous=False)[0].margin for n in (1000, 500, 248)]
    [0.02, 0.0055, 0.003]
    >>> change, confidence = choose_comparison(100, continuous=False)
    >>> change.mode, confidence
    ('improve', 0.96)
    >>> choose_comparison(1000, continuous=False, wrong_references=0.1)[0].margin
    0.005

    Args:
        wrong_references: Share of them, 0-1: a true loss then measures smaller, and the margin allows for it.
    """
    variance = PowerSpec().spread ** 2 if continuous else ASSUMED_DISCORDANCE

    def regresses(change: ChangeThreshold, confidence: float) -> bool:
        rule = Comparison(change, n_items, variance, paired=not continuous, alpha=1 - confidence)
        measured = [measured_share(wrong_references) * loss for loss in LOSSES]
        return sum(pass_chances(rule, measured)) > REGRESSIONS * len(LOSSES)

    first, last = 0, len(MARGINS)  # a narrower margin never passes more
    while first < last:
        middle = (first + last) // 2
        refresh = ChangeThreshold(against="champion", mode="refresh", margin=MARGINS[middle])
        first, last = (middle + 1, last) if regresses(refresh, CONFIDENCES[0]) else (first, middle)
    if first < len(MARGINS):
        return ChangeThreshold(against="champion", mode="refresh", margin=MARGINS[first]), CONFIDENCES[0]
    improve = ChangeThreshold(against="champion", mode="improve")
    sure = next((each for each in CONFIDENCES if not regresses(improve, each)), CONFIDENCES[-1])
    return improve, sure
