"""Certify a threshold: tickets whose answer is at least so probable are right as often as a target says.

Knows arrays alone. Of each ticket it reads a confidence and whether the answer was right; larger confidences are
surer, and their scale does not matter.

Two sets take part. *Planning* tickets fix the candidate thresholds and their order; calibration tickets test them, and
no choice that calibration tickets influence comes before a test. That is Learn-then-Test with split fixed-sequence
testing: the most promising threshold first, then ever lower ones, until one is not proven. Each test is at the whole
error probability, and the chance that any of the proven thresholds misses the target is no more than that.
Source: Angelopoulos, Bates, Candès, Jordan, Lei (2021), Learn then Test, arXiv 2110.01052, sections 2.2 and 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.assess.binomial import exceeded_by, exceeds

Floats = NDArray[np.float64]
N_THRESHOLDS = 100
"""Candidate thresholds: quantiles of the planning tickets' confidences."""
POWER = 0.8
"""Chance of a certificate that "about N more tickets" has, as in `gates.power`."""
EXTRAPOLATION = 10
"""As many times the tickets that were seen are the most that these can say would do."""
BETS = np.geomspace(0.02, 0.95, 12)
"""Sizes of a bet that are averaged, as shares of the largest with which nothing can be lost but the stake."""


@dataclass(frozen=True)
class Answered:
    """Tickets with known answers, in any order."""

    confidence: Floats
    """Of each ticket's answer; -inf for an answer that is never routed."""
    right: NDArray[np.bool_]
    clusters: NDArray[np.int64] | None = None
    """Cluster of each ticket, such as its customer; None if tickets are independent."""

    def __post_init__(self) -> None:
        clusters = self.right if self.clusters is None else self.clusters
        if not len(self.confidence) == len(self.right) == len(clusters):
            raise ValueError("confidences, answers and clusters differ in number")
        if np.isnan(self.confidence).any():
            raise ValueError("a confidence is not a number")

    def __len__(self) -> int:
        return len(self.right)

    def joined(self, other: Answered) -> Answered:
        """Both, with their clusters kept apart."""
        clusters = None
        if self.clusters is not None and other.clusters is not None and len(self):
            clusters = np.concatenate([self.clusters, other.clusters + self.clusters.max() + 1])
        elif other.clusters is not None:
            clusters = other.clusters
        return Answered(
            np.concatenate([self.confidence, other.confidence]), np.concatenate([self.right, other.right]), clusters
        )


@dataclass(frozen=True)
class Certificate:
    """The lowest threshold that is proven, or what is missing."""

    target: float
    """Least share of right answers among routed tickets, 0-1."""
    confidence: float
    """Chance that the target is kept, over the draw of the calibration tickets, 0-1."""
    threshold: float | None
    """Route a ticket whose confidence is at least this; None: nothing is certified, and all go to review."""
    n_calibration: int
    n_clusters: int | None
    """Clusters of the calibration tickets; None if tickets were counted as independent."""
    n_routed: int = 0
    """Calibration tickets at the threshold or above."""
    n_right: int = 0
    p_value: float | None = None
    """Of the test at the threshold, or of the first one if it failed; None if no threshold was worth a test."""
    n_more: int | None = None
    """Without a threshold: about so many more calibration tickets would do; None if no number would."""
    n_least: int | None = None
    """If so few tickets do not say how many would do: at least so many more."""
    best_accuracy: float | None = None
    """Without a threshold: accuracy on all tickets at the threshold that is most likely to be proven."""

    @property
    def coverage(self) -> float:
        """Share of the calibration tickets that is routed, 0-1."""
        return self.n_routed / self.n_calibration if self.n_calibration else 0.0

    def sentence(self) -> str:
        """What is certified or missing.

        >>> Certificate(0.95, 0.95, None, 200, None, n_more=310, best_accuracy=0.98).sentence()
        'nothing certified at a target of 0.95; about 310 more calibration tickets would do'
        """
        if self.threshold is not None:
            return (
                f"{self.coverage:.1%} of {self.n_calibration} calibration tickets are routed, at least "
                f"{self.target:.4g} of such tickets are right (confidence {self.confidence:.4g})"
            )
        head = f"nothing certified at a target of {self.target:.4g}"
        if self.n_more is not None:
            return f"{head}; about {self.n_more} more calibration tickets would do"
        if self.n_least is not None:
            return f"{head}; at least {self.n_least} more calibration tickets are needed, so few do not say how many"
        if self.best_accuracy is None:
            return f"{head}: there are no answered tickets to plan with"
        accuracy = f"{self.best_accuracy:.1%}"
        return f"{head}: the surest answers are right {accuracy} of the time, so no number of tickets would do"


def certify(planning: Answered, calibration: Answered, *, target: float, confidence: float = 0.95) -> Certificate:
    """Find the lowest threshold at which routed tickets are proven to be right as often as `target`.

    With probability `confidence` over independent draws of calibration tickets, the share of right answers among all
    tickets of that kind at the threshold or above is at least `target`; or nothing is certified. That holds whatever
    the planning tickets are, as long as they are others; from the same time as the calibration tickets they find more.

    Independent tickets: an exact binomial tail, given how many are routed. In clusters, such as those of customers:
    `cluster_p_value`, for which a cluster is one observation.

    Raises:
        ValueError: target or confidence is not between 0 and 1, or only one of the two sets is in clusters.
    """
    if not (0 < target < 1 and 0 < confidence < 1):
        raise ValueError(f"target {target} and confidence {confidence} must be between 0 and 1")
    if len(planning) and (planning.clusters is None) != (calibration.clusters is None):
        raise ValueError("planning and calibration tickets must both be in clusters, or neither")
    clusters = calibration.clusters
    empty = Certificate(
        target, confidence, None, len(calibration), None if clusters is None else len(np.unique(clusters))
    )
    alpha = 1 - confidence
    thresholds = order_of_tests(planning, n_observed(calibration), target=target, alpha=alpha)
    if not len(thresholds):
        return empty
    found, most = empty, largest_cluster(planning)
    for threshold in thresholds:
        p_value = _p_value(calibration, float(threshold), target, most)
        if p_value > alpha:
            break
        routed = calibration.confidence >= threshold
        n_right = int(calibration.right[routed].sum())
        found = replace(empty, threshold=float(threshold), n_routed=int(routed.sum()), n_right=n_right, p_value=p_value)
    if found.threshold is not None:
        return found
    everything = planning.joined(calibration)
    needed = tickets_needed(everything, target=target, alpha=alpha)
    if needed is not None and needed > EXTRAPOLATION * len(everything):
        needed = None
    more = None if needed is None else max(needed - len(calibration), math.ceil(len(calibration) / 10))
    at_first = everything.right[everything.confidence >= thresholds[0]]
    least = None if needed is not None else _least_tickets(everything, target, alpha)
    return replace(
        empty,
        p_value=p_value,
        n_more=more,
        n_least=None if least is None else max(1, least - len(calibration)),
        best_accuracy=float(at_first.mean()),
    )


def order_of_tests(planning: Answered, n: int, *, target: float, alpha: float) -> Floats:
    """Return the thresholds to test, falling: from the one that is most likely to be proven to the lowest.

    Args:
        n: Calibration tickets; or clusters, if the planning tickets are in clusters.
    """
    levels = _levels(planning)
    if not len(levels):
        return levels
    if planning.clusters is None:
        sizes, accuracies = _routed(planning, levels)
        worth = _proof_chance(np.maximum(np.rint(n * sizes / len(planning)), 1), accuracies, target, alpha)
    else:
        most = largest_cluster(planning)
        wins = (cluster_wins(planning, float(each), target, most) for each in levels)
        worth = np.array([_growth(each, target, most) for each in wins])
    return levels[int(np.argmax(worth)) :]


def n_observed(tickets: Answered) -> int:
    """Count what is independent: clusters, or tickets without clusters."""
    return len(tickets) if tickets.clusters is None else len(np.unique(tickets.clusters))


def largest_cluster(planning: Answered) -> int:
    """Tickets of the largest planning cluster: no calibration cluster counts for more."""
    return 1 if planning.clusters is None or not len(planning) else int(np.bincount(planning.clusters).max())


def cluster_wins(tickets: Answered, threshold: float, target: float, most: int) -> Floats:
    """What each cluster adds to the sum of `right - target` over routed tickets, shape `(n_clusters,)`.

    A cluster with more than `most` routed tickets counts as that many, its mean kept.
    """
    clusters = np.zeros(len(tickets), np.int64) if tickets.clusters is None else tickets.clusters
    _, belongs = np.unique(clusters, return_inverse=True)
    routed = tickets.confidence >= threshold
    wins = np.bincount(belongs, np.where(routed, tickets.right - target, 0.0))
    sizes = np.bincount(belongs, routed)
    return np.asarray(wins * np.minimum(1.0, most / np.maximum(sizes, 1)))


def cluster_p_value(wins: Floats, target: float, most: int) -> float:
    """Test that clusters lose on average: that routed tickets are right less often than `target`.

    A bet of a constant size on each cluster multiplies the stake by `1 + bet * wins`. If clusters lose on average, no
    size makes more than the stake in expectation, nor does the mean over the sizes, so the chance of making 1 / p or
    more is at most p (Markov). Exact for any number of clusters and however alike the tickets of one are.
    Source: Waudby-Smith, Ramdas (2024), Estimating means of bounded random variables by betting, arXiv 2010.09686.

    Args:
        wins: From `cluster_wins`, at most `most` tickets each.
    """
    logs = np.log1p(np.multiply.outer(BETS / (target * most), wins)).sum(axis=1)
    peak = logs.max()
    return float(min(1.0, math.exp(-min(peak + math.log(np.exp(logs - peak).mean()), 700.0))))


def tickets_needed(answered: Answered, *, target: float, alpha: float) -> int | None:
    """Count the calibration tickets with which some threshold is proven with probability `POWER`.

    Args:
        answered: Whatever is known of the model, as if it were exact.

    Returns:
        None if the model is nowhere right more often than `target`.
    """
    if answered.clusters is None:
        sizes, accuracies = _routed(answered, _levels(answered))
        return tickets_for(sizes / max(1, len(answered)), accuracies, target=target, alpha=alpha, n_seen=len(answered))
    found: list[float] = []
    most, tickets_of_one = largest_cluster(answered), len(answered) / n_observed(answered)
    for level in _levels(answered):
        growth = _growth(cluster_wins(answered, float(level), target, most), target, most)
        # The mean over the sizes of bets and luck cost about as much again as the proof.
        found += [2 * math.log(1 / alpha) / growth * tickets_of_one] if growth > 0 else []
    return math.ceil(min(found)) if found else None


def tickets_for(
    coverages: ArrayLike, accuracies: ArrayLike, *, target: float, alpha: float, n_seen: int | None = None
) -> int | None:
    """Count the independent calibration tickets with which one of these thresholds is proven with probability `POWER`.

    Args:
        coverages: Shares of all tickets at a threshold or above, 0-1.
        accuracies: Of those tickets, 0-1.
        n_seen: Tickets that both were measured on; None if they are assumed.

    Returns:
        None if no accuracy is above the target.

    >>> tickets_for(0.5, 0.99, target=0.95, alpha=0.05), tickets_for(0.5, 0.9, target=0.95, alpha=0.05)
    (252, None)
    """
    found: list[float] = []
    for coverage, accuracy in zip(np.atleast_1d(coverages), np.atleast_1d(accuracies), strict=True):
        sure = float(accuracy)
        if n_seen is not None:  # the best of a hundred thresholds looks better than it is: half a standard error less
            sure -= 0.5 * math.sqrt(sure * (1 - sure) / (coverage * n_seen + 1))
        routed = _routed_needed(sure, target, alpha)
        found += [] if routed is None else [routed / float(coverage)]
    return math.ceil(min(found)) if found else None


def _least_tickets(answered: Answered, target: float, alpha: float) -> int | None:
    """Tickets without which nothing can be proven: as many routed ones as prove it without an error.

    None if the tickets are right more often than the target at no threshold: then no number is enough.
    """
    shares = [
        float(routed.mean())
        for routed in (answered.confidence >= level for level in _levels(answered))
        if answered.right[routed].mean() > target
    ]
    return math.ceil(_least_routed(target, alpha) / max(shares)) if shares else None


def _least_routed(target: float, alpha: float) -> int:
    """Routed tickets that prove the target if all of them are right."""
    return math.ceil(math.log(alpha) / math.log(target))


def _levels(planning: Answered) -> Floats:
    """Quantiles of the confidences, falling."""
    finite = planning.confidence[np.isfinite(planning.confidence)]
    if not len(finite):
        return np.zeros(0)
    places = np.linspace(0, 1, N_THRESHOLDS, endpoint=False)
    return np.unique(np.quantile(finite, places, method="lower"))[::-1]


def _routed(tickets: Answered, levels: Floats) -> tuple[Floats, Floats]:
    """Tickets at each level or above, and the share that is right, drawn towards a half: ten of ten are not all."""
    falling = np.argsort(-tickets.confidence, kind="stable")
    n_right = np.concatenate([[0], np.cumsum(tickets.right[falling])])
    sizes = np.searchsorted(-tickets.confidence[falling], -levels, side="right")
    return sizes.astype(np.float64), (n_right[sizes] + 0.5) / (sizes + 1)


def _p_value(tickets: Answered, threshold: float, target: float, most: int) -> float:
    if tickets.clusters is not None:
        return cluster_p_value(cluster_wins(tickets, threshold, target, most), target, most)
    right = tickets.right[tickets.confidence >= threshold]
    return float(exceeds(right.sum() - 1, len(right), target))


def _growth(wins: Floats, target: float, most: int) -> float:
    """Nats that the best bet gains per cluster."""
    return float(np.log1p(np.multiply.outer(BETS / (target * most), wins)).mean(axis=1).max())


def _routed_needed(accuracy: float, target: float, alpha: float) -> int | None:
    """Routed tickets with which an accuracy is proven with probability `POWER`."""
    if accuracy <= target:
        return None
    z, z_power = NormalDist().inv_cdf(1 - alpha), NormalDist().inv_cdf(POWER)
    spread = z * math.sqrt(target * (1 - target)) + z_power * math.sqrt(accuracy * (1 - accuracy))
    n = max(math.ceil((spread / (accuracy - target)) ** 2), _least_routed(target, alpha))
    while _proof_chance(n, accuracy, target, alpha) < POWER:
        n = math.ceil(1.02 * n)
    return n


def _proof_chance(n: ArrayLike, accuracy: ArrayLike, target: float, alpha: float) -> Floats:
    """Chance that n routed tickets, each right with probability `accuracy`, prove the target."""
    return exceeds(exceeded_by(alpha, n, target), n, accuracy)
