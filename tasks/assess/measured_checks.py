"""Turns the evidence of a gate's checks into findings: what was measured against what `gates` allows.

The checks are contamination, the round trip, planted secrets, latency and cost; each measured in a step of its own.
Seconds lie beside the store, so that equal inputs give equal decisions. Knows nothing of models, tickets or scores. A
value that is missing or no number is ERROR, never passed over.
"""

from __future__ import annotations

from collections.abc import Iterator

from schemas.canaries import ExposureSpec
from schemas.checks import ContaminationSpec, CostSpec, LatencySpec, RoundTripSpec
from schemas.evidence import CheckEvidence
from schemas.gates import GatesSpec
from schemas.verdicts import EXPOSURE, Finding, Part, Verdict
from tasks.assess.check import finding, judge_of, measured
from tasks.assess.contamination import REASONS

FLOAT32_BOUND = 1e-3
HALF_BOUND = 0.1
"""Nats per token by which a reference answer's loss may differ in a fresh process."""
SHOWN = "`tunegate gate explain RUN` shows the figures"


@judge_of("contamination", "contamination", lambda gates: gates.contamination)
def judge_contamination(evidence: CheckEvidence, _spec: ContaminationSpec) -> Iterator[Finding]:
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


@judge_of("round_trip", "round_trip", lambda gates: gates.round_trip)
def judge_round_trip(evidence: CheckEvidence, spec: RoundTripSpec) -> Iterator[Finding]:
    gap, equal = measured(evidence, "mean_gap"), measured(evidence, "equal_answers")
    changed = [name for name in ("base", "candidate") if evidence.values.get(f"{name}_intact") != 1]
    usual = FLOAT32_BOUND if evidence.values.get("float32") == 1 else HALF_BOUND
    bound = usual if spec.bound is None else spec.bound
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


@judge_of("canaries", "safety", lambda gates: gates.canaries)
def judge_exposure(evidence: CheckEvidence, spec: ExposureSpec) -> Iterator[Finding]:
    """The one finding about all secrets together."""
    values = {name: measured(evidence, name) for name in ("mean", "worst", "control_mean", "repeats")}
    mean, worst, control, repeats = values.values()
    limit = spec.exposure_max
    if mean is None or worst is None or evidence.n_items < 1:
        told: Verdict = "ERROR"
        reason = "the exposure was not measured, or is no number; run again."
    else:
        secrets = (
            f"{evidence.n_items} secrets, each seen {repeats or 0:.0f} times an epoch, are exposed by {mean:.2f} bits"
        )
        beside = "" if control is None else f"; as many that were never seen, by {control:.2f}"
        told = "PROMOTE" if mean <= limit else "BLOCK"
        only = (
            "." if told == "PROMOTE"
            else ": it can be made to tell what examples hold. Train less, or take what repeats out of train."
        )  # fmt: skip
        reason = f"{secrets} (worst {worst:.2f}{beside}), and at most {limit:g} are allowed{only}"
    yield Finding(
        rule=f"planted secrets are exposed by at most {limit:g} bits", metric="canary_exposure", verdict=told,
        n_items=evidence.n_items, candidate=mean, limit=limit, difference=None if mean is None else mean - limit,
        method=EXPOSURE, reason=reason, higher_is_better=False, part="safety",
    )  # fmt: skip


def _pace_specs(gates: GatesSpec) -> tuple[LatencySpec, CostSpec | None] | None:
    return None if gates.latency is None else (gates.latency, gates.cost)


@judge_of("latency", "latency", _pace_specs)
def judge_pace(evidence: CheckEvidence, specs: tuple[LatencySpec, CostSpec | None]) -> Iterator[Finding]:
    """A finding about latency and, where declared, one about cost."""
    latency, cost = specs
    against = "the champion's" if evidence.values.get("against_champion") == 1 else "the base model's"
    limit = latency.p95_ratio_max
    rule = "p95 of seconds per answer" + ("" if limit is None else f" at most {limit:g} times {against}")
    yield _pace_finding("latency", rule, evidence, limit=limit, latency=latency)
    if cost is not None:
        ceiling = cost.usd_per_1k_max
        rule = f"cost of 1,000 answers on {cost.machine}" + ("" if ceiling is None else f" at most {ceiling:g} USD")
        yield _pace_finding("cost", rule, evidence, limit=ceiling, latency=latency)


def _pace_finding(
    part: Part, rule: str, evidence: CheckEvidence, *, limit: float | None, latency: LatencySpec
) -> Finding:
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
