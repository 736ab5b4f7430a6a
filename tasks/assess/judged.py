"""The language model's judgement before the gate: a guard where it agrees with people, else only a report.

Its test is one of the gate's Holm family. Knows nothing of endpoints; `tasks/assess/gate.py` calls it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from schemas.evidence import CheckEvidence
from schemas.gates import GatesSpec
from schemas.judge import JudgeSpec
from schemas.verdicts import Verdict
from tasks.assess.judge import judge_change
from tasks.assess.questions import Asked

MAX_UNREADABLE = 0.1
"""Share of pairs after which the judge's words mean nothing."""
RULE = "the judge is not shown to prefer the present answers"


def ask_judge(gates: GatesSpec, evidence: Sequence[CheckEvidence]) -> Iterator[Asked]:
    """Is the candidate surely liked less? Nothing is asked if not declared."""
    spec = gates.judge
    if spec is None:
        return
    found = [each for each in evidence if each.check == "judge"]
    values = found[0].values if len(found) == 1 else {}
    counts = [_count(values.get(name)) for name in ("won", "lost", "tied", "unreadable", "labels")]
    if None in counts or not found or found[0].n_items < 1:
        yield _told("ERROR", "the judge was not asked, or its choices are no counts; run again.", decides=True)
        return
    won, lost, tied, unreadable, labels = (count or 0 for count in counts)
    n = found[0].n_items
    said = f"better {won}, worse {lost}, undecided or place-dependent {tied} of {n}"
    if unreadable > MAX_UNREADABLE * (n + labels):
        yield _told(
            "ERROR", f"{unreadable} of {n + labels} replies of the judge are neither A, B nor TIE.", decides=True
        )
        return
    doubt = _doubt(spec, labels, values.get("kappa"))
    if doubt:
        yield _told("HOLD", f"{said}; only reported, for {doubt}.", decides=False, n_items=n)
        return
    import numpy as np

    gained, worse = np.zeros(n), np.zeros(n)
    gained[:won] = worse[won : won + lost] = 1.0
    judgement = judge_change(
        gained, worse, metric="judge", margin=None, against="the present answers", confidence=1 - gates.alpha,
        kind="guard",
    )  # fmt: skip
    yield Asked(
        rule=RULE, metric="judge", slice=None, method=judgement.method, n_items=n, judgement=judgement, part="judge"
    )


def _doubt(spec: JudgeSpec, labels: int, kappa: float | None) -> str:
    """Why it may not decide; empty where it may."""
    if spec.labels is None:
        return "it was not held against people's choices (gates.judge.labels)"
    if labels < spec.min_labels:
        return f"it was held against {labels} choices of people, and {spec.min_labels} are needed"
    if kappa is None or not kappa >= spec.min_kappa:
        told = "no number" if kappa is None or not math.isfinite(kappa) else f"{kappa:.2f}"
        return f"its kappa with people's choices is {told}, and {spec.min_kappa:g} is needed"
    return ""


def _told(verdict: Verdict, reason: str, *, decides: bool, n_items: int = 0) -> Asked:
    return Asked(
        rule=RULE, metric="judge", slice=None, method="tango", n_items=n_items, verdict=verdict, reason=reason,
        decides=decides, part="judge",
    )  # fmt: skip


def _count(value: float | None) -> int | None:
    return int(value) if value is not None and math.isfinite(value) and value >= 0 else None
