"""Judges one rule on lined-up scores: numbers in, a verdict with its bounds and a sentence out.

Knows nothing of files, slices or the other rules; `tasks/assess/gate.py` asks, and defines the verdicts.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.artifacts import Verdict
from schemas.evaluation import CONTINUOUS, LOWER_IS_BETTER
from tasks.assess.compare import (
    Bounds,
    bootstrap_t_interval,
    clopper_pearson_interval,
    items_needed,
    paired_items_needed,
    tango_interval,
)

if TYPE_CHECKING:
    from tasks.assess.compare import Floats

MIN_CONTINUOUS_ITEMS = 200
"""Under this bootstrap-t passes too often: 10 % instead of 5 % at n=100 with rare catastrophic answers."""
MIN_DIFFERING_ITEMS = 30
"""With fewer values unlike the commonest one bootstrap-t passes up to 26 % instead of 5 % at n=200."""


@dataclass(frozen=True)
class Judgement:
    """The part of a `Finding` that follows from the scores alone; same meaning of the fields."""

    verdict: Verdict
    method: str
    reason: str
    candidate: float
    reference: float | None
    difference: float
    lower: float | None
    upper: float | None


def judge_value(candidate: Floats, *, metric: str, limit: float, confidence: float) -> Judgement:
    """Compare the bound of the candidate's own mean with an absolute limit."""
    mirrored = metric in LOWER_IS_BETTER
    n, mean = len(candidate), float(candidate.mean())
    worth = f"{metric} is {mean:.3f} on {n} items"
    allowed = f"at most {limit:g} is allowed" if mirrored else f"at least {limit:g} is needed"
    bounds: Bounds | None = None
    shortage = _shortage(candidate, metric) if metric in CONTINUOUS else None
    if shortage is None:
        bounds = _value_bounds(candidate, metric, confidence)
    if bounds is None:
        verdict: Verdict = "HOLD"
        reason = f"{worth} and {allowed}, but {shortage}"
    else:
        sure, possible = (bounds.upper, bounds.lower) if mirrored else (bounds.lower, bounds.upper)
        at_least, at_most = ("at most", "at least") if mirrored else ("at least", "at most")
        met = sure <= limit if mirrored else sure >= limit
        missed = possible > limit if mirrored else possible < limit
        level = f"at {100 * confidence:g} % confidence"
        if met:
            verdict, reason = "PROMOTE", f"{worth}, {at_least} {sure:.3f} {level}, and {allowed}"
        elif missed:
            verdict = "BLOCK"
            reason = f"{worth}, {at_most} {possible:.3f} {level}, and {allowed}; only a better candidate can pass"
        else:
            verdict = "HOLD"
            more = _more_items(_value_items_needed(candidate, metric, limit, confidence), n)
            reason = f"{worth} and {allowed}, but {level} it may be {bounds.lower:.3f} to {bounds.upper:.3f}; {more}"
    return _judgement(verdict, metric, "value", reason, mean, None, mean - limit, bounds)


def judge_change(
    candidate: Floats, reference: Floats, *, metric: str, margin: float | None, against: str, confidence: float
) -> Judgement:
    """Compare candidate and reference on the same items.

    Args:
        margin: Tolerated loss of mode refresh; null for mode improve.
        against: The reference in words.
    """
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    n, mean, other = len(candidate), float(candidate.mean()), float(reference.mean())
    difference = candidate - reference
    gain = sign * float(difference.mean())
    worth = f"{metric} is {mean:.3f} against {other:.3f} of {against} on {n} items"
    bounds: Bounds | None = None
    verdict: Verdict = "HOLD"
    if not difference.any():
        if metric not in CONTINUOUS:
            bounds = _change_bounds(difference, metric, confidence)
        reason = f"{worth}: no better, the scores are equal on every item; only a candidate that differs can pass"
    elif metric in CONTINUOUS and (shortage := _shortage(difference, metric)):
        reason = f"{worth}: {_by(gain)}, but {shortage}"
    else:
        bounds = _change_bounds(difference, metric, confidence)
        lower, upper = (bounds.lower, bounds.upper) if sign > 0 else (-bounds.upper, -bounds.lower)
        level = f"at {100 * confidence:g} % confidence"
        enough = lower > 0 if margin is None else lower > -margin
        if enough and gain > 0:
            verdict = "PROMOTE"
            needed = "more than 0 is needed" if margin is None else f"a loss of {margin:g} is tolerated"
            reason = f"{worth}: {_by(gain)}, {_sure(lower)} {level}, and {needed}"
        elif upper < 0:
            verdict = "BLOCK"
            reason = f"{worth}: worse by at least {-upper:.3f} {level}; only a better candidate can pass"
        else:
            distance = abs(gain) if gain <= 0 else gain + (margin or 0.0)
            more = _more_items(_change_items_needed(difference, metric, distance, confidence), n)
            reason = f"{worth}: {_by(gain)}, but {level} anything from {lower:+.3f} to {upper:+.3f} fits; {more}"
    return _judgement(verdict, metric, "change", reason, mean, other, sign * gain, bounds)


def method_of(metric: str, *, kind: str) -> str:
    """Name of the statistical procedure for a metric; kind is `value` or `change`."""
    if metric in CONTINUOUS:
        return "bootstrap_t"
    return "tango" if kind == "change" else "clopper_pearson"


def _value_bounds(values: Floats, metric: str, confidence: float) -> Bounds:
    if metric in CONTINUOUS:
        return bootstrap_t_interval(values, confidence=confidence)
    return clopper_pearson_interval(int(values.sum()), len(values), confidence=confidence)


def _change_bounds(difference: Floats, metric: str, confidence: float) -> Bounds:
    if metric in CONTINUOUS:
        return bootstrap_t_interval(difference, confidence=confidence)
    gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
    return tango_interval(gained, lost, len(difference), confidence=confidence)


def _shortage(values: Floats, metric: str) -> str | None:
    """Why a continuous score cannot be bounded yet, or null."""
    n = len(values)
    if n < MIN_CONTINUOUS_ITEMS:
        return (
            f"not enough items to bound {metric}: {MIN_CONTINUOUS_ITEMS} are needed, {MIN_CONTINUOUS_ITEMS - n:,} more"
        )
    n_differing = n - max(Counter(values.tolist()).values())
    if n_differing < MIN_DIFFERING_ITEMS:
        return f"only {n_differing} items differ from the rest, and bounding {metric} needs {MIN_DIFFERING_ITEMS}"
    return None


def _value_items_needed(values: Floats, metric: str, limit: float, confidence: float) -> int | None:
    mean = float(values.mean())
    if metric in CONTINUOUS:
        null = true = float(values.std(ddof=1))
    else:
        null, true = (math.sqrt(max(0.0, share * (1 - share))) for share in (limit, mean))
    return items_needed(abs(mean - limit), sd_null=null, sd_true=true, confidence=confidence)


def _change_items_needed(difference: Floats, metric: str, distance: float, confidence: float) -> int | None:
    if metric in CONTINUOUS:
        spread = float(difference.std(ddof=1))
        return items_needed(distance, sd_null=spread, sd_true=spread, confidence=confidence)
    return paired_items_needed(distance, discordance=float((difference != 0).mean()), confidence=confidence)


def _more_items(needed: int | None, n_items: int) -> str:
    if needed is None:
        return "at exactly this level no number of items would decide, only a better candidate"
    return f"about {max(1, needed - n_items):,} more items would decide if it really is at this level"


def _by(gain: float) -> str:
    return f"better by {gain:.3f}" if gain > 0 else f"worse by {-gain:.3f}" if gain < 0 else "no better on average"


def _sure(lower: float) -> str:
    return f"at least {lower:.3f}" if lower > 0 else f"worse by at most {-lower:.3f}"


def _judgement(
    verdict: Verdict,
    metric: str,
    kind: str,
    reason: str,
    candidate: float,
    reference: float | None,
    difference: float,
    bounds: Bounds | None,
) -> Judgement:
    return Judgement(
        verdict=verdict,
        method=method_of(metric, kind=kind),
        reason=reason + ".",
        candidate=candidate,
        reference=reference,
        difference=difference,
        lower=None if bounds is None or math.isinf(bounds.lower) else bounds.lower,
        upper=None if bounds is None or math.isinf(bounds.upper) else bounds.upper,
    )
