"""Latency and cost before the gate: what a declared limit makes of the rounds in which it was kept.

Knows no seconds: they stand beside the store, so that equal inputs give equal decisions. Called by
`tasks/assess/checks.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from schemas.checks import CostSpec, LatencySpec
from schemas.evidence import CheckEvidence
from schemas.verdicts import Finding, Part, Verdict

SHOWN = "`tunegate gate explain RUN` shows the figures"


def pace_findings(evidence: CheckEvidence, *, latency: LatencySpec, cost: CostSpec | None) -> Iterator[Finding]:
    """A finding about latency and, where declared, one about cost."""
    against = "the champion's" if evidence.values.get("against_champion") == 1 else "the base model's"
    limit = latency.p95_ratio_max
    rule = "p95 of seconds per answer" + ("" if limit is None else f" at most {limit:g} times {against}")
    yield _finding("latency", rule, evidence, limit=limit, latency=latency)
    if cost is not None:
        ceiling = cost.usd_per_1k_max
        rule = f"cost of 1,000 answers on {cost.machine}" + ("" if ceiling is None else f" at most {ceiling:g} USD")
        yield _finding("cost", rule, evidence, limit=ceiling, latency=latency)


def _finding(part: Part, rule: str, evidence: CheckEvidence, *, limit: float | None, latency: LatencySpec) -> Finding:
    rounds, kept = evidence.values.get("rounds"), evidence.values.get(f"{part}_within")
    on_cpu = evidence.values.get("cuda") == 0
    told = f"{evidence.n_items} answers in {rounds or 0:.0f} rounds, each in turn with the reference"
    decides = limit is not None and not (on_cpu and latency.on_cpu == "report")
    verdict: Verdict = "HOLD"
    if limit is None:
        reason = f"{told}; no limit is declared; {SHOWN}."
    elif rounds is None or kept is None or not 0 <= kept <= rounds or not rounds >= 1 or evidence.n_items < 1:
        verdict, decides, reason = "ERROR", True, "it was not measured; run again."
    else:
        reason = f"{told}: the limit is kept in {kept:.0f}; {SHOWN}."
        verdict = "PROMOTE" if kept == rounds else "BLOCK" if kept == 0 else "HOLD"
        if not decides:
            reason = f"{reason[:-1]}; on a CPU it is only reported (gates.latency.on_cpu)."
    return Finding(
        rule=rule, metric=part, verdict=verdict, n_items=evidence.n_items, candidate=None, limit=limit,
        method="rounds", reason=reason, higher_is_better=False, part=part, decides=decides,
    )  # fmt: skip
