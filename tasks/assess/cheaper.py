"""Name an arm that costs less than the candidate and is better at what is trained, where no rule compares the two.

A warning next to the verdict: it decides nothing.
"""

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from schemas.errors import GateError
from schemas.verdicts import Finding
from tasks.assess.contract import sign_p
from tasks.assess.evidence import BASELINE_ARMS, CLASSIFIER_ARMS, Arms, line_up


def find_cheaper(
    arms: Arms,
    findings: Iterable[Finding],
    *,
    confidence: float,
    without: frozenset[str],
    replaced: Collection[str] = (),
) -> str:
    """Return a sentence about the best arm that is better at `exact` or a field, at the confidence; empty if none is.

    A metric by which the findings compare with every baseline is left out: the verdict has it already.

    Args:
        confidence: Of a sign test over the items, one-sided.
        without: Ids of items that do not count.
        replaced: Arms that a rule compares with as what is to be replaced.
    """
    ours = arms.candidate
    names = [name for name in ours.metrics if name == "exact" or name.startswith("field_")]
    judged = {each.metric for each in findings if each.slice is None and "best_baseline (" in each.rule}
    known = [arms.baselines[arm] for arm in BASELINE_ARMS if arm in arms.baselines and arm not in replaced]
    try:
        pairs = [
            (name, other.arm, line_up(ours, other, metric=name, slice_name=None, without=without))
            for other in known
            for compared in ([ours.values(name) for name in names if name in judged and other.measures(name)],)
            for name in names
            if other.measures(name) and ours.values(name) not in compared  # of one field `exact` has the same values
        ]
    except GateError:  # one of the findings is about it
        return ""
    better = [
        (float(pair.reference.mean()), float(pair.candidate.mean()), name, arm, pair.n_items)
        for name, arm, pair in pairs
        if pair.reference is not None and _is_worse(pair.candidate - pair.reference, alpha=1 - confidence)
    ]
    if not better:
        return ""
    theirs, mine, name, arm, n_items = max(better)
    needs = "no language model" if arm in CLASSIFIER_ARMS else "no training"
    return (
        f"{arm}, which needs {needs}, is better at {name}: {theirs:.3f} against {mine:.3f} on {n_items} items, and no "
        "rule compares with it."
    )


def _is_worse(gains: NDArray[np.float64], *, alpha: float) -> bool:
    won, lost = int((gains > 0).sum()), int((gains < 0).sum())
    return lost > won and float(sign_p(won, lost)) <= alpha
