"""Turns the evidence of a gate's checks into findings: what was measured against what `gates` allows.

Knows nothing of models, tickets or scores; each check measured in a step of its own. Called by `tasks/assess/gate.py`.
A declared check whose evidence is missing, doubled or not a number is ERROR, never passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

from schemas.evidence import CheckEvidence
from schemas.gates import GatesSpec
from schemas.verdicts import Finding, Part, Verdict
from tasks.assess.contamination import REASONS
from tasks.assess.memorised import exposure_findings
from tasks.assess.pace import pace_findings

FLOAT32_BOUND = 1e-3
HALF_BOUND = 0.1
"""Nats per token by which a reference answer's loss may differ in a fresh process."""


def check_findings(evidence: Sequence[CheckEvidence], gates: GatesSpec) -> Iterator[Finding]:
    """The findings of each declared check."""
    judges: dict[
        Literal["contamination", "round_trip", "canaries", "latency"], Callable[[CheckEvidence], Iterator[Finding]]
    ] = {}
    if gates.contamination is not None:
        judges["contamination"] = _contamination
    if gates.round_trip is not None:
        judges["round_trip"] = partial(_round_trip, bound=gates.round_trip.bound)
    if gates.canaries is not None:
        judges["canaries"] = partial(exposure_findings, spec=gates.canaries)
    if gates.latency is not None:
        judges["latency"] = partial(pace_findings, latency=gates.latency, cost=gates.cost)
    for name, judge in judges.items():
        found = [each for each in evidence if each.check == name]
        if len(found) == 1:
            yield from judge(found[0])
        else:
            part: Part = "safety" if name == "canaries" else name
            yield finding(
                part, f"gates.{name}", "ERROR", n_items=0, value=None, method="none",
                reason=f"{len(found)} results of the check arrived at the gate, and one is needed; run again.",
            )  # fmt: skip


def finding(
    part: Part,
    rule: str,
    verdict: Verdict,
    *,
    n_items: int,
    value: float | None,
    method: str,
    reason: str,
    limit: float | None = None,
    reference: float | None = None,
    metric: str = "",
    decides: bool = True,
) -> Finding:
    """A finding about one measured value, without bounds."""
    return Finding(
        rule=rule, metric=metric or part, verdict=verdict, n_items=n_items, candidate=value, reference=reference,
        difference=None if value is None or limit is None else value - limit, limit=limit, method=method,
        reason=reason, higher_is_better=False, part=part, decides=decides,
    )  # fmt: skip


def measured(evidence: CheckEvidence, name: str) -> float | None:
    """A finite value, else null."""
    value = evidence.values.get(name)
    return value if value is not None and math.isfinite(value) else None


def _contamination(evidence: CheckEvidence) -> Iterator[Finding]:
    counts = {code: measured(evidence, code) for code in REASONS}
    trained = measured(evidence, "trained")
    rule = "no trained ticket gives a held-out item away"
    if trained is None or not trained > 0 or None in counts.values() or evidence.n_items < 1:
        yield finding(
            "contamination", rule, "ERROR", n_items=evidence.n_items, value=None, limit=0.0, method="comparison",
            reason="it was not counted for every way to leak; run again.",
        )  # fmt: skip
        return
    n_leaks = sum(count for count in counts.values() if count is not None)
    n_unprotected = measured(evidence, "unprotected")
    if n_leaks > 0:
        told = "; ".join(f"{count:.0f} {REASONS[code]}" for code, count in counts.items() if count)
        reason = (
            f"{n_leaks:.0f} of {trained:.0f} trained tickets ({told}), such as {', '.join(evidence.examples)}; "
            "all are listed in the step's evidence. Take them out of train, or give other held-out tickets."
        )
    else:
        reason = (
            f"{trained:.0f} trained tickets were compared with {evidence.n_items} items by text, customer, thread and "
            f"time; {n_unprotected or 0:.0f} items hold nothing rare enough for a quote to be told."
        )
    yield finding(
        "contamination", rule, "PROMOTE" if n_leaks <= 0 else "ERROR", n_items=evidence.n_items, value=n_leaks,
        limit=0.0, method="comparison", reason=reason,
    )  # fmt: skip


def _round_trip(evidence: CheckEvidence, *, bound: float | None) -> Iterator[Finding]:
    gap, equal = measured(evidence, "mean_gap"), measured(evidence, "equal_answers")
    changed = [name for name in ("base", "candidate") if evidence.values.get(f"{name}_intact") != 1]
    if bound is None:
        bound = FLOAT32_BOUND if evidence.values.get("float32") == 1 else HALF_BOUND
    verdict: Verdict = "ERROR"
    if changed:
        reason = f"the files of {' and '.join(changed)} are not those of their digest; run again."
    elif gap is None or evidence.n_items < 1:
        reason = "nothing could be compared; run again."
    elif gap <= bound:
        verdict = "PROMOTE"
        reason = (
            f"loaded anew, the files give reference answers the same loss within {gap:.2g} nats per token (mean of "
            f"{evidence.n_items} prompts), and {equal or 0:.0f} equal answers."
        )
    else:
        reason = (
            f"loaded anew, the files give reference answers a loss that is {gap:.4g} nats per token apart from that "
            f"at evaluation (mean of {evidence.n_items} prompts), and {bound:g} is allowed: what would be "
            "released is not what was judged."
        )
    yield finding(
        "round_trip", "the released files answer as the candidate did", verdict, n_items=evidence.n_items, value=gap,
        limit=bound, method="comparison", reason=reason,
    )  # fmt: skip
