"""What agents made of suggestions, as findings of the gate: each version's acceptance, and the floor under it.

A new candidate has made no suggestion yet: the champion's rate is reported. A candidate that served before (one that
was rolled back, or the champion again) is BLOCK when its own rate is surely under the floor. The champion's rate never
blocks a new candidate: that would keep a champion whom nobody wants. Called by `tasks/assess/gate.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from schemas.feedback import Acceptance, LiveQuality
from schemas.verdicts import Finding, Verdict

METRIC = "acceptance"


def live_findings(live: LiveQuality | None) -> Iterator[Finding]:
    """A finding per version that matters: those of the candidate and the champion, then the others; none undeclared."""
    if live is None:
        return
    first = {live.candidate: 0, live.champion: 1}
    for found in sorted(live.versions, key=lambda each: (first.get(each.version, 2), -int(each.version))):
        yield _finding(live, found)


def _finding(live: LiveQuality, found: Acceptance) -> Finding:
    spec, is_candidate = live.spec, found.version == live.candidate
    floor = spec.min_acceptance
    who = (
        "the candidate" if is_candidate else "the champion" if found.version == live.champion else "an earlier version"
    )
    told = f"agents accepted {found.n_accepted} of {found.n} suggestions of v{found.version} ({who})"
    decides = is_candidate and floor is not None and found.n >= spec.min_suggestions
    verdict: Verdict = "PROMOTE"
    if not decides or floor is None:
        verdict, reason = "HOLD", f"{told}; reported, it decides nothing."
        if is_candidate and floor is not None:
            reason = f"{told}; fewer than feedback.min_suggestions ({spec.min_suggestions}) decide nothing."
    elif not found.upper >= floor:
        verdict, reason = "BLOCK", f"{told}: surely less than {floor:g}; only another candidate can pass."
    else:
        reason = f"{told}: not shown to be less than {floor:g}."
    return Finding(
        rule=f"live acceptance of v{found.version}" + (f" at least {floor:g}" if decides else ""), metric=METRIC,
        verdict=verdict, n_items=found.n, candidate=found.rate, lower=found.lower, upper=found.upper,
        limit=floor if decides else None, difference=found.rate - floor if decides and floor is not None else None,
        method="clopper_pearson", reason=reason, part="live", decides=decides,
    )  # fmt: skip
