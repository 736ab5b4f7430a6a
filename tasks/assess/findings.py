"""Settles the answers of one gate together: Holm's correction over all tests that may block, then a finding each.

Knows nothing of files or arms; `tasks/assess/gate.py` calls it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from schemas.verdicts import EvidenceUse, Finding, Verdict
from tasks.assess.contract import BLOCK, HOLD, PROMOTE, settle
from tasks.assess.judge import Judgement
from tasks.assess.questions import Asked

_VERDICTS: dict[int, Verdict] = {PROMOTE: "PROMOTE", HOLD: "HOLD", BLOCK: "BLOCK"}


def findings_of(asked: Sequence[Asked], *, alpha: float) -> Iterator[Finding]:
    """A finding per question, in their order."""
    import numpy as np

    tested = [each.judgement for each in asked if each.judgement is not None and each.judgement.lower is not None]
    settled: dict[int, Verdict] = {}
    if tested:
        met = np.array([judgement.met for judgement in tested], np.bool_)
        p_harm = np.array([judgement.p_harm for judgement in tested], np.float64)
        codes = settle(met, p_harm, alpha=alpha).tolist()
        settled = {id(judgement): _VERDICTS[code] for judgement, code in zip(tested, codes, strict=True)}
    for each in asked:
        yield _finding(each, settled, n_tests=len(tested))


def use_findings(use: EvidenceUse, *, n_items: int) -> Iterator[Finding]:
    """A HOLD each for a candidate or for items that were judged, or did judge, too often."""
    if not use.look <= use.looks_max:
        yield Finding(
            rule=f"a candidate is judged on at most {use.looks_max} held-out sets", metric="looks", verdict="HOLD",
            n_items=n_items, candidate=None, method="count",
            part="use",
            reason=f"this candidate was judged on {use.look - 1} other held-out sets, and gates.looks_max is "
            f"{use.looks_max}; only another candidate can pass.",
        )  # fmt: skip
    if use.budget is not None and not use.verdict <= use.budget:
        yield Finding(
            rule=f"the same items judge at most {use.budget} candidates", metric="reuse", verdict="HOLD",
            n_items=n_items, candidate=None, method="count",
            part="use",
            reason=f"these items have judged {use.verdict - 1} candidates, and gates.reuse.budget is {use.budget}; "
            "fresh tickets in the test split are needed.",
        )  # fmt: skip


def _finding(asked: Asked, settled: dict[int, Verdict], *, n_tests: int) -> Finding:
    judgement = asked.judgement
    if judgement is None:
        return Finding(
            rule=asked.rule, metric=asked.metric, slice=asked.slice, verdict=asked.verdict, n_items=asked.n_items,
            candidate=None, limit=asked.limit, method=asked.method, reason=asked.reason, part=asked.part,
            decides=asked.decides,
        )  # fmt: skip
    verdict, reason = _settled(judgement, settled.get(id(judgement), judgement.verdict), n_tests)
    if asked.short and verdict in ("PROMOTE", "HOLD"):
        verdict, reason = "HOLD", asked.reason
    return Finding(
        rule=asked.rule,
        metric=asked.metric,
        slice=asked.slice,
        verdict=verdict,
        n_items=asked.n_items,
        candidate=judgement.candidate,
        reference=judgement.reference,
        difference=judgement.difference,
        lower=judgement.lower,
        upper=judgement.upper,
        limit=asked.limit,
        method=judgement.method,
        reason=reason,
        won=judgement.won,
        lost=judgement.lost,
        p_harm=judgement.p_harm if id(judgement) in settled else None,
        higher_is_better=asked.higher_is_better,
        part=asked.part,
        decides=asked.decides,
    )


def _settled(judgement: Judgement, verdict: Verdict, n_tests: int) -> tuple[Verdict, str]:
    """The verdict among all tests, and its reason where it is milder than the rule's own."""
    if judgement.verdict == "BLOCK" and verdict != "BLOCK":
        return verdict, (
            f"{judgement.if_not_blocked}, but that may be chance among the {n_tests} tests of this gate (Holm); "
            "more items would decide."
        )
    return verdict, judgement.reason
