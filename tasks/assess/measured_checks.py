"""Judge the evidence of the gate's checks: compare measured values with what `gates` allows.

The checks are contamination, the round trip, planted secrets, latency and cost; a separate step measures each. Seconds
are kept outside the store, so that equal inputs give equal decisions. A value that is missing or not a number is ERROR.
"""

from collections.abc import Iterator

from schemas.artifacts import CheckEvidence
from schemas.checks import ContaminationSpec, CostSpec, ExposureSpec, LatencySpec, RoundTripSpec
from schemas.gates import GatesSpec
from schemas.verdicts import EXPOSURE, Finding, Part, Verdict
from tasks.assess.check import Measurement, finding, judge_of, measured
from tasks.assess.contamination import REASONS
from tasks.assess.pace import EXCEEDED, KEPT, NOT_SHOWN

_SHOWN: dict[float | None, tuple[Verdict, str]] = {
    KEPT: ("PROMOTE", "the limit is shown to be kept"),
    NOT_SHOWN: (
        "HOLD",
        "it is neither shown to be kept nor to be exceeded, and more items would decide (gates.latency.n_prompts, "
        "evaluate.max_items)",
    ),
    EXCEEDED: ("BLOCK", "the limit is shown to be exceeded, and only a faster candidate can pass"),
}
_METHODS = {"latency": "sign_test_beyond_p95", "cost": "bootstrap_t"}
FLOAT32_BOUND = 1e-3
HALF_BOUND = 0.1
"""Nats per token by which the loss of a reference answer may differ in a new process."""
UNKNOWN_EXAMPLES = (
    "contamination is unknown: what the model learned from is not declared (train.trained_on), and it may have seen "
    "the held-out items"
)
SHOWN = "`tunegate gate explain RUN` shows the figures"


@judge_of("contamination", "contamination", lambda gates: gates.contamination)
def judge_contamination(evidence: CheckEvidence, _spec: ContaminationSpec) -> Iterator[Finding]:
    counts = {code: measured(evidence, code) for code in REASONS}
    trained = measured(evidence, "trained")
    rule = "no train/test leakage"
    if evidence.values.get("unknown") == 1:
        nothing = Measurement(None, n_items=evidence.n_items, method="none")
        reason = f"{UNKNOWN_EXAMPLES}."
        yield finding("contamination", rule, "HOLD", nothing, reason=reason, decides=False)
        return
    if unread := measured(evidence, "unread"):
        missing = Measurement(None, n_items=evidence.n_items, limit=0.0, method="comparison")
        reason = f"{unread:.0f} rows of train.trained_on could not be read, so that they were not compared."
        yield finding("contamination", rule, "ERROR", missing, reason=reason)
        return
    declared = evidence.values.get("declared") == 1
    if trained is None or not trained > 0 or None in counts.values() or evidence.n_items < 1:
        missing = Measurement(None, n_items=evidence.n_items, limit=0.0, method="comparison")
        yield finding("contamination", rule, "ERROR", missing, reason="some leaks were not counted; run again.")
        return
    n_leaks = sum(count for count in counts.values() if count is not None)
    n_unprotected = measured(evidence, "unprotected")
    examples = "examples of train.trained_on" if declared else "train tickets"
    if n_leaks > 0:
        kinds = "; ".join(f"{count:.0f} {REASONS[code]}" for code, count in counts.items() if count)
        remedy = "Train it without them" if declared else "Remove them from train"
        reason = (
            f"{n_leaks:.0f} of {trained:.0f} {examples} leak ({kinds}), such as {', '.join(evidence.examples)}; the "
            f"step's evidence lists all. {remedy}, or use other held-out tickets."
        )
    else:
        reason = (
            f"{trained:.0f} {examples} were compared with {evidence.n_items} items by text, customer, thread and "
            f"time; in {n_unprotected or 0:.0f} items nothing is rare enough to recognise a quote."
        )
    leaks = Measurement(n_leaks, n_items=evidence.n_items, limit=0.0, method="comparison")
    yield finding("contamination", rule, "PROMOTE" if n_leaks <= 0 else "ERROR", leaks, reason=reason)


@judge_of("round_trip", "round_trip", lambda gates: gates.round_trip)
def judge_round_trip(evidence: CheckEvidence, spec: RoundTripSpec) -> Iterator[Finding]:
    gap, equal = measured(evidence, "mean_gap"), measured(evidence, "equal_answers")
    changed = [name for name in ("base", "candidate") if evidence.values.get(f"{name}_intact") != 1]
    usual = FLOAT32_BOUND if evidence.values.get("float32") == 1 else HALF_BOUND
    bound = usual if spec.bound is None else spec.bound
    verdict: Verdict = "ERROR"
    if changed:
        reason = f"the files of {' and '.join(changed)} do not match their digest; run again."
    elif gap is None or evidence.n_items < 1:
        reason = "nothing could be compared; run again."
    elif gap <= bound:
        verdict = "PROMOTE"
        reason = (
            f"loaded in a new process, the files give reference answers the same loss within {gap:.2g} nats per token "
            f"(mean of {evidence.n_items} prompts), and {equal or 0:.0f} equal answers."
        )
    else:
        reason = (
            f"loaded in a new process, the files give reference answers a loss that differs from the evaluation's by "
            f"{gap:.4g} nats per token (mean of {evidence.n_items} prompts), and {bound:g} is allowed: the released "
            "files would not be what was judged."
        )
    value = Measurement(gap, n_items=evidence.n_items, limit=bound, method="comparison")
    yield finding("round_trip", "the released files answer as the candidate did", verdict, value, reason=reason)


@judge_of("canaries", "safety", lambda gates: gates.canaries)
def judge_exposure(evidence: CheckEvidence, spec: ExposureSpec) -> Iterator[Finding]:
    """One finding about all secrets together."""
    values = {name: measured(evidence, name) for name in ("mean", "worst", "control_mean", "repeats")}
    mean, worst, control, repeats = values.values()
    limit = spec.exposure_max
    if mean is None or worst is None or evidence.n_items < 1:
        verdict: Verdict = "ERROR"
        reason = "the exposure was not measured, or is not a number; run again."
    else:
        secrets = (
            f"{evidence.n_items} secrets, each seen {repeats or 0:.0f} times an epoch, are exposed by {mean:.2f} bits"
        )
        unseen = "" if control is None else f"; as many unseen ones, by {control:.2f}"
        verdict = "PROMOTE" if mean <= limit else "BLOCK"
        only = (
            "." if verdict == "PROMOTE"
            else ": the model can be made to reveal its examples. Train less, or remove repeated texts from train."
        )  # fmt: skip
        reason = f"{secrets} (worst {worst:.2f}{unseen}), and at most {limit:g} are allowed{only}"
    yield Finding(
        rule=f"planted secrets are exposed by at most {limit:g} bits", metric="canary_exposure", verdict=verdict,
        n_items=evidence.n_items, candidate=mean, limit=limit, difference=None if mean is None else mean - limit,
        method=EXPOSURE, reason=reason, higher_is_better=False, part="safety",
    )  # fmt: skip


def _pace_specs(gates: GatesSpec) -> tuple[LatencySpec, CostSpec | None] | None:
    return None if gates.latency is None else (gates.latency, gates.cost)


@judge_of("latency", "latency", _pace_specs)
def judge_pace(evidence: CheckEvidence, specs: tuple[LatencySpec, CostSpec | None]) -> Iterator[Finding]:
    """A finding about latency and, if declared, one about cost."""
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
    shown, on_cpu = evidence.values.get(f"{part}_shown"), evidence.values.get("cuda") == 0
    timed = f"{evidence.n_items} items were answered one by one, alternating with the reference"
    decides = limit is not None and not (on_cpu and latency.on_cpu == "report")
    verdict: Verdict = "HOLD"
    if limit is None:
        reason = f"{timed}; no limit is declared; {SHOWN}."
    elif shown not in _SHOWN or evidence.n_items < 1:
        verdict, decides, reason = "ERROR", True, "it was not measured; run again."
    else:
        verdict, found = _SHOWN[shown]
        reason = f"{timed}; at the confidence {found}; {SHOWN}."
        if not decides:
            reason = f"{reason[:-1]}; on a CPU this is only reported (gates.latency.on_cpu)."
    return Finding(
        rule=rule, metric=part, verdict=verdict, n_items=evidence.n_items, candidate=None, limit=limit,
        method=_METHODS[part], reason=reason, higher_is_better=False, part=part, decides=decides,
    )  # fmt: skip
