"""Judge one rule on paired scores: numbers in; a verdict with its bounds, p-value and reason out.

The verdict is the rule's alone: `tasks/assess/gate.py`, which defines the verdicts, withdraws a BLOCK that is not
significant among all tests of the gate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from schemas.gates import PowerSpec
from schemas.metrics import MetricTraits
from schemas.verdicts import Verdict
from tasks.assess.compare import tango_interval
from tasks.assess.contract import least_gain, least_p
from tasks.assess.power import gain_items_needed, items_needed, share_items_needed
from tasks.assess.weigh import Kind, method_of, settled, shortage_of, spread_of, weigh_change, weigh_value

if TYPE_CHECKING:
    from tasks.assess.compare import Floats
    from tasks.assess.weigh import Clusters


NO_PLAN = PowerSpec()


@dataclass(frozen=True)
class Judgement:
    """The part of a `Finding` that follows from the scores; the fields mean the same."""

    verdict: Verdict
    method: str
    reason: str
    candidate: float
    reference: float | None
    difference: float
    lower: float | None
    upper: float | None
    met: bool
    """Whether the rule is met, if it is not violated."""
    p_harm: float
    """p-value of "the rule is not violated"; 1 without evidence."""
    if_not_blocked: str
    """The reason if a BLOCK is not significant among all tests."""
    won: int | None = None
    lost: int | None = None
    more_items: int | None = None
    p_least: float = 0.0
    """The smallest p-value that so many differing items can give; 0 if it was not computed."""
    sd: float | None = None
    """Standard deviation of one item's difference; None for absolute limits, and without bounds unless of a guard."""


@dataclass(frozen=True)
class ValueTest:
    """Does the mean of a metric reach an absolute limit?"""

    traits: MetricTraits
    confidence: float
    """One-sided."""
    limit: float
    hard_limit: float | None = None
    """A mean beyond it is BLOCK, however likely it is by chance."""
    planned: PowerSpec = NO_PLAN
    """The distance from the limit for which a HOLD says how many items are missing."""


@dataclass(frozen=True)
class ChangeTest:
    """How does a metric compare with a reference on the same items?"""

    traits: MetricTraits
    confidence: float
    """One-sided."""
    against: str
    """Name of the reference in reasons."""
    margin: float | None = None
    """Tolerated loss; None tolerates none."""
    kind: Kind | None = None
    """None is `improve` without a margin and `refresh` with one."""
    min_gain: float | None = 0.0
    """Least gain that must be measured; None as in `contract.least_gain`."""
    planned: PowerSpec = NO_PLAN
    """The gain for which a HOLD says how many items are missing."""


def judge_value(candidate: Floats, test: ValueTest, *, clusters: Clusters = None) -> Judgement:
    """Compare the bound of the candidate's mean with the limit."""
    traits, confidence, limit, hard_limit = test.traits, test.confidence, test.limit, test.hard_limit
    metric = traits.name
    sign = 1.0 if traits.higher_is_better else -1.0
    n, mean, level = len(candidate), float(candidate.mean()), f"at {100 * confidence:g} % confidence"
    worth = f"{metric} is {mean:.3f} on {n} items"
    at_least, at_most = ("at least", "at most") if sign > 0 else ("at most", "at least")
    allowed = f"{at_least} {limit:g} is {'needed' if sign > 0 else 'allowed'}"
    base = Judgement(
        "HOLD", method_of(traits, kind="value", clustered=clusters is not None), "", mean, None, mean - limit,
        None, None, met=False, p_harm=1.0, if_not_blocked="",
    )  # fmt: skip
    if hard_limit is not None and not sign * mean >= sign * hard_limit:
        reason = f"{worth}, and {at_least} {hard_limit:g} is a hard limit; only a better candidate can pass."
        return replace(base, verdict="BLOCK", reason=reason, p_harm=0.0)
    shortage = shortage_of(candidate, traits, clusters)
    if shortage is not None:
        return replace(base, reason=f"{worth} and {allowed}, but {shortage}.")
    evidence = weigh_value(candidate, traits, limit=limit, alpha=1 - confidence, clusters=clusters)
    bounds = evidence.bounds
    sure, possible = (bounds.lower, bounds.upper) if sign > 0 else (bounds.upper, bounds.lower)
    met, harmed = settled(evidence.outcome, 1 - confidence)
    missed = f"{worth}, {at_most} {possible:.3f} {level}, and {allowed}"
    verdict: Verdict = "HOLD"
    more: int | None = None
    if met:
        verdict, reason = "PROMOTE", f"{worth}, {at_least} {sure:.3f} {level}, and {allowed}"
    elif harmed:
        verdict, reason = "BLOCK", f"{missed}; only a better candidate can pass"
    else:
        needed = _value_items_needed(test, evidence.sd, clusters)
        more = None if needed is None else max(0, needed - n)
        what = f"the true value is {test.planned.effect:g} better than the limit"
        shown = f"{level} it may be {bounds.lower:.3f} to {bounds.upper:.3f}"
        reason = f"{worth} and {allowed}, but {shown}; {_advice(more, what)}"
    return replace(
        base, verdict=verdict, reason=f"{reason}.", lower=_finite(bounds.lower), upper=_finite(bounds.upper), met=met,
        p_harm=float(evidence.outcome.p_harm), if_not_blocked=missed, more_items=more,
    )  # fmt: skip


def judge_change(candidate: Floats, reference: Floats, test: ChangeTest, *, clusters: Clusters = None) -> Judgement:
    """Compare candidate and reference item by item."""
    traits, confidence, margin = test.traits, test.confidence, test.margin
    kind = test.kind or ("improve" if margin is None else "refresh")
    sign = 1.0 if traits.higher_is_better else -1.0
    n, mean, other = len(candidate), float(candidate.mean()), float(reference.mean())
    gains = sign * (candidate - reference)
    gain, level = float(gains.mean()), f"at {100 * confidence:g} % confidence"
    worth = f"{traits.name} is {mean:.3f} against {other:.3f} of {test.against} on {n} items"
    base = Judgement(
        "HOLD", method_of(traits, kind="change", clustered=clusters is not None), "", mean, other, sign * gain,
        None, None, met=False, p_harm=1.0, if_not_blocked="",
        won=int((gains > 0).sum()), lost=int((gains < 0).sum()),
    )  # fmt: skip
    same = not gains.any()
    if same and kind in ("improve", "refresh"):
        reason = f"{worth}: no better, the scores are equal on every item; only a candidate that differs can pass."
        if traits.continuous:
            return replace(base, reason=reason)
        equal = tango_interval(0, 0, n, confidence=confidence)
        return replace(base, reason=reason, lower=equal.lower, upper=equal.upper)
    shortage = None if same else shortage_of(gains, traits, clusters)
    if shortage is not None:
        if kind != "guard":
            return replace(base, reason=f"{worth}: {_by(gain)}, but {shortage}.")
        # It can show no harm by itself; next to the other slices it may still be held (`contract.loss_chances`).
        reason = f"{worth}: {_by(gain)}; {shortage}."
        return replace(base, verdict="PROMOTE", reason=reason, met=True, sd=spread_of(gains, clusters))
    evidence = weigh_change(
        gains, traits, kind=kind, margin=margin or 0.0, alpha=1 - confidence, clusters=clusters, min_gain=test.min_gain
    )
    lower, upper = evidence.bounds.lower, evidence.bounds.upper
    met, harmed = settled(evidence.outcome, 1 - confidence)
    worse = f"{worth}: worse by at least {-upper:.3f} {level}"
    verdict: Verdict = "HOLD"
    more: int | None = None
    if met and not harmed:
        interval = _interval(lower, upper, traits, level)
        verdict, reason = "PROMOTE", f"{worth}: {_by(gain)} {_met(kind, interval, margin)}"
    elif harmed:
        verdict, reason = "BLOCK", f"{worse}; only a better candidate can pass"
    else:
        needed, what = _change_items_needed(test, kind, gains, evidence.sd, clusters)
        more = None if needed is None else max(0, needed - n)
        least = float(least_gain(evidence.sd / n**0.5, test.min_gain))
        measured = kind == "refresh" and lower > -(margin or 0.0) and 0 < gain < least
        short = (
            f"a gain of {least:.3g} must be measured"
            if measured
            else f"not decided: {_interval(lower, upper, traits, level)}"
        )
        reason = f"{worth}: {_by(gain)}, but {short}; {_advice(more, what)}"
    first, last = (lower, upper) if sign > 0 else (-upper, -lower)
    countable = not traits.continuous and clusters is None
    return replace(
        base, verdict=verdict, reason=f"{reason}.", lower=_finite(first), upper=_finite(last), met=met,
        p_harm=float(evidence.outcome.p_harm), if_not_blocked=worse, more_items=more, sd=evidence.sd,
        p_least=float(least_p((gains != 0).sum(), n)) if countable and kind == "guard" else 0.0,
    )  # fmt: skip


def _value_items_needed(test: ValueTest, sd: float, clusters: Clusters) -> int | None:
    """Items with which a value that is `planned.effect` better than the limit is shown."""
    planned, confidence = test.planned, test.confidence
    if test.traits.continuous or clusters is not None:
        return items_needed(planned.effect, sd_null=sd, sd_true=sd, confidence=confidence, power=planned.power)
    limit = test.limit if test.traits.higher_is_better else 1 - test.limit
    true = limit + min(planned.effect, 1 - limit)
    return share_items_needed(limit, true, confidence=confidence, power=planned.power)


def _change_items_needed(
    test: ChangeTest, kind: Kind, gains: Floats, sd: float, clusters: Clusters
) -> tuple[int | None, str]:
    """Items with which the planned effect is shown, and that effect in words."""
    level = {"confidence": test.confidence, "power": test.planned.power}
    paired = not test.traits.continuous and clusters is None
    variance = max(float((gains != 0).mean()), 1 / len(gains)) if paired else sd**2
    if kind == "anchor":
        sd = math.sqrt(variance)
        needed = items_needed(test.margin or 0.0, sd_null=sd, sd_true=sd, **level)
        return needed, "the candidate is truly equal"
    needed = gain_items_needed(
        test.planned.effect, variance=variance, paired=paired, margin=test.margin or 0.0, min_gain=test.min_gain,
        **level,
    )  # fmt: skip
    return needed, f"the true gain is {test.planned.effect:g}"


def _advice(more: int | None, what: str) -> str:
    if more is None:
        return f"no number of items would decide even if {what} (gates.power), only another candidate"
    if more == 0:
        return f"there are enough items to show it if {what} (gates.power), so that more hardly help"
    return f"about {more:,} more items would decide if {what} (gates.power)"


def _interval(lower: float, upper: float, traits: MetricTraits, level: str) -> str:
    """The gains that fit what was seen: in points if the metric is a share."""
    if traits.limits == (0.0, 1.0):
        return f"{100 * lower:+.1f} to {100 * upper:+.1f} points fits {level}"
    return f"{lower:+.3f} to {upper:+.3f} fits {level}"


def _met(kind: Kind, interval: str, margin: float | None) -> str:
    if kind == "guard":
        return f"and not shown to be worse ({interval})"
    return f"({interval}), and {'more than 0 is needed' if margin is None else f'a loss of {margin:g} is tolerated'}"


def _by(gain: float) -> str:
    return f"better by {gain:.3f}" if gain > 0 else f"worse by {-gain:.3f}" if gain < 0 else "no better on average"


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None
