"""What it is worth to judge a held candidate again: declared looks at a growing held-out set, with alpha spent.

Group `looks` of `make bench-gates`; exact, by the law of (gained, lost) from look to look. The levels are those of
`tasks/assess/looks.py`, the rule that of `tasks/assess/contract.py`; `tests/benchmarks/test_gates.py` holds one
candidate after the other to `decide` itself. Also `gates.interim` against it: what a user with a number of answers per
run is better off with.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.gates.promises import (
    EFFECT,
    GO_ON,
    TODAY,
    Decide,
    Law,
    exact_law,
    with_stops,
    without_stops,
)
from benchmarks.gates.simulated import ALPHA, DISCORDANCE
from benchmarks.measure import table
from schemas.gates import GateRule, GatesSpec, LooksSpec
from schemas.verdicts import Terms, UsedBudget
from tasks.assess.contract import BLOCK, HOLD, PROMOTE, change_outcome
from tasks.assess.looks import Levels, is_spent, levels_of, spent_by

LOOKS = (248, 496, 744)
"""Held-out items of each look: what arrives in three times as many weeks as the first took."""
Spend = Literal["equal", "obrien_fleming"]
SPENDS: tuple[Spend, ...] = ("equal", "obrien_fleming")
ANSWERS = (500, 1000)
"""Answers of a run that a user has time for."""
SETTINGS = 6
"""Settings of a gate that a user tries on one candidate."""


def looks(*, quick: bool) -> dict[str, object]:
    """All figures of the group."""
    plans = [LOOKS, (100, 500, 1000), (500, 1000)] if quick else [LOOKS, (100, 500, 1000), (60, 120), (500, 600, 2000)]
    errors = [
        resumed(at[start:], discordance, 0.0, spend=spend, at=at).promoted
        for at in plans
        for spend in SPENDS
        for discordance in TODAY
        for start in range(len(at))
    ]
    by_look = [resumed(LOOKS[:n], DISCORDANCE, EFFECT, at=LOOKS).promoted for n in range(1, len(LOOKS) + 1)]
    late = [resumed(LOOKS[:n], DISCORDANCE, EFFECT, spend="obrien_fleming", at=LOOKS).promoted for n in (1, 2, 3)]
    return {
        "resume_equal_pass": round(max(errors), 4),
        "resume_plus3": round(by_look[-1], 4),
        "resume_plus3_by_look": [round(share, 4) for share in by_look],
        "resume_plus3_by_look_obrien_fleming": [round(share, 4) for share in late],
        "resume_plus3_one_look": round(without_stops(LOOKS[0], DISCORDANCE, EFFECT).promoted, 4),
        "resume_or_interim": {str(n): weighed(n) for n in ANSWERS},
        "edited_equal_pass": round(max(edited(n, spend=spend) for n in (1, 3, SETTINGS) for spend in SPENDS), 4),
        "edited_equal_pass_before": round(edited(1, is_counted=False), 4),
    }


def edited(n_looks: int, *, spend: Spend = "equal", is_counted: bool = True, n: int = 500) -> float:
    """Chance that an equal candidate passes one of so many settings of a gate, each tried after a HOLD.

    Each setting judges by evidence that shares nothing with the others, which is the worst case.

    Args:
        n_looks: Those that the gates declare, `gates.looks.max`.
        is_counted: Whether what is tried spends; else each has the whole error probability.
    """
    rule = GateRule(metric="exact", value_threshold=0.5)
    gates = GatesSpec(rules=(rule,), confidence=1 - ALPHA, looks=LooksSpec(max=n_looks, spend=spend))
    terms, none_passes = Terms(rules="", alpha=gates.alpha, looks=n_looks, spend=spend), 1.0
    for tried in range(SETTINGS):
        used = UsedBudget(looks=tried, edited=tried, spent=spent_by([[terms]] * tried)) if is_counted else UsedBudget()
        if is_spent(gates, used):
            break
        level = levels_of(gates, used, n_items=n).met if is_counted else ALPHA

        def decide(
            n: int, gained: NDArray[np.float64], lost: NDArray[np.float64], level: float = level
        ) -> NDArray[np.int64]:
            return np.where(change_outcome(gained, lost, n, margin=0.0, alpha=level).met, PROMOTE, HOLD)

        none_passes *= 1 - exact_law((n,), DISCORDANCE, 0.0, decide).promoted
    return 1 - none_passes


def resumed(
    sizes: Sequence[int], discordance: float, delta: float, *, spend: Spend = "equal", at: Sequence[int] = LOOKS
) -> Law:
    """Chances of `improve` at these looks; a candidate goes on to the next look only with HOLD.

    Args:
        sizes: Items of its looks. Looks of `at` before the first are passed over: there were more tickets from the
            start. Without those after the last, the candidate is not resumed.
        at: The looks that are declared.
    """
    ends, levels = tuple(sizes), _levels(tuple(sizes), tuple(at), spend)

    def decide(n: int, gained: NDArray[np.float64], lost: NDArray[np.float64]) -> NDArray[np.int64]:
        outcome, held = change_outcome(gained, lost, n, margin=0.0, alpha=levels[n].met), HOLD
        if n < ends[-1]:
            held = GO_ON
        return np.where(outcome.p_harm <= levels[n].harm, BLOCK, np.where(outcome.met, PROMOTE, held))

    rule: Decide = decide
    return exact_law(ends, discordance, delta, rule)


@cache
def _levels(sizes: tuple[int, ...], at: tuple[int, ...], spend: Spend) -> dict[int, Levels]:
    """The levels of each look, as the gate finds it from what the ledger says was spent before."""
    rule = GateRule(metric="exact", value_threshold=0.5)
    gates = GatesSpec(rules=(rule,), confidence=1 - ALPHA, looks=LooksSpec(at=at, spend=spend))
    terms, found = Terms(rules="", alpha=gates.alpha, looks=len(at), spend=spend, at=at), dict[int, Levels]()
    for place, size in enumerate(sizes):
        before = sizes[:place]
        used = UsedBudget(looks=place, spent=spent_by([[terms]] * place, before), nested=before)
        found[size] = levels_of(gates, used, n_items=size)
    return found


def weighed(n: int) -> dict[str, dict[str, float]]:
    """Each way to use `n` answers per run: the chance to promote, and the answers of a candidate.

    One run with all of them, the same with stops, and three looks at up to three times as many items. Answers of
    candidates 3 points better, equal and 3 points worse; those of three looks come from as many runs, and an item that
    was answered is not answered again.
    """
    at = (n, 2 * n, 3 * n)
    ways = {
        "one look": lambda delta: without_stops(n, DISCORDANCE, delta),
        "interim": lambda delta: with_stops(n, DISCORDANCE, delta),
        "three looks": lambda delta: resumed(at, DISCORDANCE, delta, at=at),
    }
    laws = {name: [law(delta) for delta in (EFFECT, 0.0, -EFFECT)] for name, law in ways.items()}
    return {
        name: {
            "plus3": round(better.promoted, 4), "equal": round(equal.promoted, 4),
            "answers_plus3": round(better.items), "answers_equal": round(equal.items),
            "answers_minus3": round(worse.items),
        }
        for name, (better, equal, worse) in laws.items()
    }  # fmt: skip


def looks_table(figures: Mapping[str, object]) -> str:
    """What each way to use the answers of a run promotes and costs."""
    found = cast("Mapping[str, Mapping[str, Mapping[str, float]]]", figures["resume_or_interim"])
    rows = [
        [n, way, f"{100 * cells['plus3']:.1f}", f"{100 * cells['equal']:.1f}"]
        + [f"{cells[name]:.0f}" for name in ("answers_plus3", "answers_equal", "answers_minus3")]
        for n, ways in found.items()
        for way, cells in ways.items()
    ]
    columns = ["answers per run", "way", "+3 points, %", "equal, %", "answers: +3 points", "equal", "-3 points"]
    return table(columns, rows)
