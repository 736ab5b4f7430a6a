"""Has the candidate forgotten what its base can do? Non-inferiority on general questions, and KL divergence.

The test is in the gate's Holm family, so `tasks/assess/gate.py` settles it with all others.
"""

from collections.abc import Iterator, Sequence

from schemas.artifacts import CheckEvidence, Scores
from schemas.checks import ForgettingSpec
from schemas.errors import GateError
from schemas.gates import GatesSpec
from schemas.metrics import traits_of
from schemas.verdicts import Finding, Verdict
from tasks.assess.check import Measurement, finding, measured
from tasks.assess.evidence import ArmScores, line_up
from tasks.assess.judge import ChangeTest, judge_change
from tasks.assess.questions import Assessment
from tasks.assess.suite import METRIC

MIN_BASE_SHARE = 0.2
"""A base with a smaller share of right answers has too little to forget for the suite to show a loss."""


def assess_forgetting(gates: GatesSpec, suite: Sequence[Scores], *, alpha: float) -> Iterator[Assessment]:
    """Judge whether the candidate is at most the margin worse than its base; yields nothing if not declared.

    Args:
        alpha: Error probability of the rule.
    """
    spec = gates.forgetting
    if spec is None:
        return
    rule = f"{METRIC} is at most {spec.margin:g} worse than base at the confidence"
    try:
        if len(suite) != 2:
            raise GateError("the gate did not get the answers to the suite", code="TG0605")
        candidate, base = suite
        paired = line_up(ArmScores(candidate), ArmScores(base), metric=METRIC, slice_name=None)
        if paired.reference is None or paired.n_items < 1:
            raise GateError("the suite has no answers", code="TG0605")
        share = float(paired.reference.mean())
        if not share >= MIN_BASE_SHARE:
            raise GateError(
                f"the base is right on {share:.3f} of the suite; below {MIN_BASE_SHARE:g} it cannot show a loss",
                code="TG0610",
            )
    except GateError as error:
        yield Assessment(
            rule=rule, metric=METRIC, slice=None, method="tango", part="forgetting",
            reason=f"{error.message}; fix that and run again.",
        )  # fmt: skip
        return
    test = ChangeTest(traits_of(METRIC), 1 - alpha, "its base", margin=spec.margin, kind="anchor", planned=gates.power)
    judgement = judge_change(paired.candidate, paired.reference, test)
    yield Assessment(
        rule=rule, metric=METRIC, slice=None, method=judgement.method, n_items=paired.n_items, judgement=judgement,
        part="forgetting",
    )  # fmt: skip


def divergence_finding(evidence: Sequence[CheckEvidence], spec: ForgettingSpec) -> Finding:
    """Judge KL(base || candidate) on neutral texts: BLOCK above `kl_max`; without a limit it is only reported."""
    found = [each for each in evidence if each.check == "divergence"]
    limit, decides = spec.kl_max, spec.kl_max is not None
    rule = "KL(base || candidate) on neutral texts" + (f" at most {limit:g} nats per token" if limit else "")
    kl = measured(found[0], "kl") if len(found) == 1 else None
    if kl is None or not kl > -1e-3:
        missing = Measurement(None, n_items=0, limit=limit, method="mean", metric="kl")
        reason = "it was not measured, or is not a number; run again."
        return finding("forgetting", rule, "ERROR", missing, reason=reason)
    shown = f"KL is {kl:.4f} nats per token on {found[0].n_items} texts"
    verdict: Verdict = "HOLD"
    reason = f"{shown}; no limit is declared (gates.forgetting.kl_max)."
    if limit is not None:
        verdict = "PROMOTE" if kl <= limit else "BLOCK"
        only = "" if verdict == "PROMOTE" else "; only a candidate closer to its base can pass"
        reason = f"{shown}, and at most {limit:g} is allowed{only}."
    value = Measurement(kl, n_items=found[0].n_items, limit=limit, method="mean", metric="kl")
    return finding("forgetting", rule, verdict, value, reason=reason, decides=decides)
