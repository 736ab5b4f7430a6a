"""Evaluate one rule's scores: bounds, p-value, and whether it is met or violated, for 0/1 and continuous metrics.

The procedure depends on the metric's traits and on whether items belong together. The formulae that decide are in
`tasks/assess/contract.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from schemas.metrics import MetricTraits
from tasks.assess import contract
from tasks.assess.compare import (
    HARM_CONTINUITY,
    Bounds,
    MeanEstimate,
    clopper_pearson_interval,
    estimate_mean,
    n_effective,
    tango_interval,
)

if TYPE_CHECKING:
    from tasks.assess.compare import Floats

    Clusters = NDArray[np.int64] | None

MIN_CONTINUOUS_ITEMS = 320
"""With fewer, bootstrap-t passes too often. A fault of 1 % of the answers, such as an empty reply or a time-out, is in
none of 13 % of the samples of 200 and of 4 % of those of 320; such a sample passes, whatever its bound."""
MIN_DIFFERING_ITEMS = 30
"""With fewer values that differ from the most common one, bootstrap-t passes up to 26 % instead of 5 % at n=200."""
MIN_EFFECTIVE = 15
"""With fewer items that carry the spread (`MeanEstimate.n_effective`), bootstrap-t passes up to 14 % instead of 5 %:
1 % time-outs among 200 items, a lognormal ceiling of sigma 1.5, macro-F1 with rare classes, one customer with a third
of the tickets. Bounds over more passed at most 6.2 %."""
MIN_CLUSTERS = 40
"""With fewer customers their spread is not known well enough for bounds."""
Kind = Literal["improve", "refresh", "anchor", "guard"]


@dataclass(frozen=True)
class Evidence:
    """The result, in the direction where more is better."""

    outcome: contract.RuleOutcome
    bounds: Bounds
    sd: float
    """Standard deviation of one item's value, estimated from the items."""


def method_of(traits: MetricTraits, *, kind: Literal["value", "change"], clustered: bool = False) -> str:
    """Name of the statistical procedure."""
    exact = "tango" if kind == "change" else "clopper_pearson"
    name = "bootstrap_t" if traits.continuous else exact
    if not clustered:
        return name
    return "cluster_bootstrap_t" if traits.continuous else f"{name}+cluster_bootstrap_t"


def weigh_value(values: Floats, traits: MetricTraits, *, limit: float, alpha: float, clusters: Clusters) -> Evidence:
    """Compare a mean with an absolute limit; the bounds are those of the value."""
    sign = 1.0 if traits.higher_is_better else -1.0
    n, confidence = len(values), 1 - alpha
    estimate = _estimate(sign * values, clusters) if traits.continuous or clusters is not None else None
    exact: Evidence | None = None
    if not traits.continuous:
        each = 1.0 if clusters is None or _carried(estimate) else _tickets_per_customer(clusters)
        n_right, n_counted = float(values.sum()) / each, n / each
        right, aim = (n_right, limit) if sign > 0 else (n_counted - n_right, 1 - limit)
        outcome = contract.share_outcome(right, n_counted, limit=aim, alpha=alpha)
        bounds = clopper_pearson_interval(n_right, n_counted, confidence=confidence)
        exact = Evidence(outcome, bounds, binary_sd(n_right / n_counted) * each**0.5)
        if clusters is None or not _carried(estimate):
            return exact
    if estimate is None:
        return exact or _nothing(values)
    bounds = estimate.bounds(confidence=confidence)
    met = bounds.lower >= sign * limit
    if sign < 0:
        bounds = Bounds(-bounds.estimate, -bounds.upper, -bounds.lower)
    return _cautious(exact, _evidence(estimate, bounds, met, sign * limit, n))


def weigh_change(
    gains: Floats,
    traits: MetricTraits,
    *,
    kind: Kind,
    margin: float,
    alpha: float,
    clusters: Clusters,
    min_gain: float | None = 0.0,
) -> Evidence:
    """Evaluate gains over a reference, item by item, in the direction where more is better."""
    n, confidence = len(gains), 1 - alpha
    estimate = _estimate(gains, clusters) if traits.continuous or clusters is not None else None
    exact: Evidence | None = None
    if not traits.continuous:
        each = 1.0 if clusters is None or _carried(estimate) else _tickets_per_customer(clusters)
        won, lost, counted = float((gains > 0).sum()) / each, float((gains < 0).sum()) / each, n / each
        outcome = {
            "improve": lambda: contract.change_outcome(won, lost, counted, margin=0.0, alpha=alpha),
            "refresh": lambda: contract.change_outcome(
                won, lost, counted, margin=margin, alpha=alpha, min_gain=min_gain
            ),
            "anchor": lambda: contract.anchor_outcome(won, lost, counted, margin=margin, alpha=alpha),
            "guard": lambda: contract.guard_outcome(won, lost, counted),
        }[kind]()
        beyond = HARM_CONTINUITY if kind == "anchor" else None
        bounds = tango_interval(won, lost, counted, confidence=confidence, harm_continuity=beyond)
        exact = Evidence(outcome, bounds, float(gains.std()) * each**0.5)
        if clusters is None or not _carried(estimate):
            return exact
    elif not gains.any():  # an anchor or guard without any difference
        return Evidence(contract.kept_unless_rejected(1.0), Bounds(0.0, 0.0, 0.0), 0.0)
    if estimate is None:
        return exact or _nothing(gains)
    bounds = estimate.bounds(confidence=confidence)
    harm_limit = -margin if kind == "anchor" else 0.0
    gained = estimate.mean > 0 and estimate.mean >= float(contract.least_gain(estimate.error, min_gain))
    met = kind == "guard" or (bounds.lower > -margin and (kind == "anchor" or gained))
    return _cautious(exact, _evidence(estimate, bounds, met, harm_limit, n))


def _carried(estimate: MeanEstimate | None) -> bool:
    """Whether enough customers carry the spread for it to be known."""
    return estimate is not None and estimate.n_effective >= MIN_EFFECTIVE


def _tickets_per_customer(clusters: NDArray[np.int64]) -> float:
    """Tickets that prove as much as one if all tickets of a customer have the same result: the design effect.

    Source: Kish (1965), Survey Sampling, section 8.2, with intraclass correlation 1 and unequal sizes.
    """
    sizes = np.bincount(clusters).astype(np.float64)
    return float((sizes**2).sum() / sizes.sum())


def _estimate(values: Floats, clusters: Clusters) -> MeanEstimate | None:
    """None if no two customers (or items) differ, so that there is no spread."""
    try:
        return estimate_mean(values, clusters=clusters)
    except ValueError:
        return None


def _nothing(values: Floats) -> Evidence:
    """Evidence that decides nothing."""
    outcome = contract.RuleOutcome(np.asarray(False), np.asarray(1.0))
    return Evidence(outcome, Bounds(float(values.mean()), -math.inf, math.inf), 0.0)


def _evidence(estimate: MeanEstimate, bounds: Bounds, met: bool, limit: float, n_items: int) -> Evidence:
    outcome = contract.RuleOutcome(np.asarray(met), np.asarray(estimate.p_below(limit)))
    return Evidence(outcome, bounds, estimate.error * n_items**0.5)


def _cautious(exact: Evidence | None, drawn: Evidence) -> Evidence:
    """The wider of two intervals: the exact one accounts for few differing items, the bootstrap for few customers."""
    if exact is None:
        return drawn
    bounds = Bounds(
        exact.bounds.estimate, min(exact.bounds.lower, drawn.bounds.lower), max(exact.bounds.upper, drawn.bounds.upper)
    )
    p_harm = np.maximum(exact.outcome.p_harm, drawn.outcome.p_harm)
    return Evidence(
        contract.RuleOutcome(exact.outcome.met & drawn.outcome.met, p_harm), bounds, max(exact.sd, drawn.sd)
    )


def settled(outcome: contract.RuleOutcome, alpha: float) -> tuple[bool, bool]:
    """Return whether the rule is met and whether it is violated, as the only test."""
    code = int(contract.settle(outcome.met[..., None], outcome.p_harm[..., None], alpha=alpha)[..., 0])
    return bool(outcome.met), code == contract.BLOCK


def shortage_of(values: Floats, traits: MetricTraits, clusters: Clusters) -> str | None:
    """Why a mean cannot be bounded, or None."""
    n, name = len(values), traits.name
    if clusters is not None and (n_clusters := len(set(clusters.tolist()))) < MIN_CLUSTERS:
        return f"the items come from {n_clusters} customers or groups, and bounding {name} needs {MIN_CLUSTERS}"
    if not traits.continuous:
        return None
    if n < MIN_CONTINUOUS_ITEMS:
        return f"not enough items to bound {name}: {MIN_CONTINUOUS_ITEMS} are needed, {MIN_CONTINUOUS_ITEMS - n:,} more"
    n_differing = n - max(Counter(values.round(9).tolist()).values())
    if n_differing < MIN_DIFFERING_ITEMS:
        return f"only {n_differing} items differ from the rest, and bounding {name} needs {MIN_DIFFERING_ITEMS}"
    units = values - values.mean()
    if clusters is not None:
        units = np.bincount(clusters, units).astype(np.float64)
    if (carriers := n_effective(units)) < MIN_EFFECTIVE:
        what = "items" if clusters is None else "customers or groups"
        return (
            f"its spread comes from about {carriers:.0f} {what} with extreme values, and bounding {name} needs "
            f"{MIN_EFFECTIVE}; limit the values, or judge the share of extreme ones with a metric of 0 or 1"
        )
    return None


def spread_of(values: Floats, clusters: Clusters) -> float:
    """Standard deviation of one item's value, as the spread of the clusters' sums shows it; 0 with a single one."""
    units = values - values.mean()
    if clusters is not None:
        units = np.bincount(clusters, units).astype(np.float64)
    n = len(units)
    return float((n / max(1, n - 1) * (units**2).sum() / len(values)) ** 0.5) if n > 1 else 0.0


def binary_sd(share: float) -> float:
    """Standard deviation of a 0/1 value with this mean."""
    return float(max(0.0, share * (1 - share)) ** 0.5)
