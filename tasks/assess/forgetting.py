"""Has the candidate forgotten what its base can do? Non-inferiority on general questions, and the divergence beside it.

The test is one of the gate's own Holm family, so `tasks/assess/gate.py` settles it with all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from schemas.artifacts import Scores
from schemas.checks import ForgettingSpec
from schemas.errors import GateError
from schemas.evidence import CheckEvidence
from schemas.gates import GatesSpec
from schemas.verdicts import Finding, Verdict
from tasks.assess.check import finding, measured
from tasks.assess.evidence import ArmScores, line_up
from tasks.assess.judge import judge_change
from tasks.assess.questions import Asked
from tasks.assess.suite import METRIC

MIN_BASE_SHARE = 0.2
"""A base that is right on fewer items has little to forget: the suite cannot tell a loss."""


def ask_forgetting(gates: GatesSpec, suite: Sequence[Scores]) -> Iterator[Asked]:
    """Is the candidate surely no more than the margin worse than its base? Nothing is asked if not declared."""
    spec = gates.forgetting
    if spec is None:
        return
    rule = f"{METRIC} is surely no more than {spec.margin:g} worse than base"
    try:
        if len(suite) != 2:
            raise GateError("answers to the suite did not arrive at the gate", code="TG0605")
        candidate, base = suite
        paired = line_up(ArmScores(candidate), ArmScores(base), metric=METRIC, slice_name=None)
        if paired.reference is None or paired.n_items < 1:
            raise GateError("nobody answered the suite", code="TG0605")
        share = float(paired.reference.mean())
        if not share >= MIN_BASE_SHARE:
            raise GateError(
                f"the base is right on {share:.3f} of the suite, and under {MIN_BASE_SHARE:g} a loss cannot be told",
                code="TG0610",
            )
    except GateError as error:
        yield Asked(
            rule=rule, metric=METRIC, slice=None, method="tango", part="forgetting",
            reason=f"{error.message}; mend that and run again.",
        )  # fmt: skip
        return
    judgement = judge_change(
        paired.candidate, paired.reference, metric=METRIC, margin=spec.margin, against="its base",
        confidence=1 - gates.alpha, kind="anchor",
    )  # fmt: skip
    yield Asked(
        rule=rule, metric=METRIC, slice=None, method=judgement.method, n_items=paired.n_items, judgement=judgement,
        part="forgetting",
    )  # fmt: skip


def divergence_finding(evidence: Sequence[CheckEvidence], spec: ForgettingSpec) -> Finding:
    """KL(base || candidate) on neutral texts: beyond `kl_max` BLOCK; without one it is reported."""
    found = [each for each in evidence if each.check == "divergence"]
    limit, decides = spec.kl_max, spec.kl_max is not None
    rule = "KL(base || candidate) on neutral texts" + (f" at most {limit:g} nats per token" if limit else "")
    kl = measured(found[0], "kl") if len(found) == 1 else None
    if kl is None or not kl > -1e-3:
        return finding(
            "forgetting", rule, "ERROR", n_items=0, value=None, limit=limit, method="mean", metric="kl",
            reason="it was not measured, or is no number; run again.",
        )  # fmt: skip
    told = f"KL is {kl:.4f} nats per token on {found[0].n_items} texts"
    verdict: Verdict = "HOLD"
    reason = f"{told}; no limit is declared (gates.forgetting.kl_max)."
    if limit is not None:
        verdict = "PROMOTE" if kl <= limit else "BLOCK"
        only = "" if verdict == "PROMOTE" else "; only a candidate nearer to its base can pass"
        reason = f"{told}, and at most {limit:g} is allowed{only}."
    return finding(
        "forgetting", rule, verdict, n_items=found[0].n_items, value=kl, limit=limit, method="mean", metric="kl",
        reason=reason, decides=decides,
    )  # fmt: skip
