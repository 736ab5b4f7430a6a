"""Interim looks at an unfinished comparison: whether the rest of the items can still make it pass. Numbers only.

Items are answered in batches in the order of a hash. After each batch a run may stop because some rule can hardly be
met any more: then nothing is promoted, whatever the unanswered items would have said. PROMOTE stays the test on all
planned items, so no look can raise its error probability; a stop costs a little power instead
(docs/decisions/looks-and-budgets.md).

Every function broadcasts over leading axes, as those of `tasks/assess/contract.py`, so that `benchmarks/gates`
simulates thousands of runs with the code that stops a real one.

Source: Lan, Simon and Halperin (1982), "Stochastically curtailed tests in long-term clinical trials"; Lachin (2005),
Statistics in Medicine 24:2747-2764, on futility by conditional power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.assess import contract
from tasks.assess.binomial import exceeded_by, exceeds
from tasks.assess.compare import CONTINUITY, z_value
from tasks.assess.weigh import Kind

if TYPE_CHECKING:
    from tasks.assess.contract import Bools, Floats
    from tasks.assess.weigh import Clusters

HARM_AT_STOP = 0.65
"""Share of the error probability with which harm is judged at a stop. Runs that stop are those that look bad: with all
of it up to 6.2 % of equal candidates are blocked, with 0.8 up to 5.6 %, with this at most 4.6 % (exact, 200 to 2,000
items, 3 to 35 % of them differing)."""
PRIOR_DIFFERING = 2.0
"""Differing items by which the share of differing items seen so far is drawn towards the planned share."""


@dataclass(frozen=True)
class Aim:
    """What a rule is planned to find."""

    kind: Kind
    alpha: float
    margin: float = 0.0
    """Tolerated loss; 0 for improve."""
    effect: float = 0.0
    """True difference of the planned candidate, in the direction where more is better."""
    min_gain: float | None = 0.0
    """Gain that must be measured; None as in `contract.least_gain`."""

    @property
    def gains(self) -> bool:
        """Whether the rule needs a measured gain."""
        return self.kind in ("improve", "refresh")


def aim_of(kind: Kind, *, margin: float, alpha: float, effect: float, min_gain: float | None = 0.0) -> Aim:
    """Return the aim of a rule: the planned gain, or no difference where none is needed to be met."""
    return Aim(kind, alpha, margin, 0.0 if kind == "anchor" else effect, min_gain)


def change_chances(
    gained: ArrayLike, lost: ArrayLike, n_items: ArrayLike, n_planned: int, *, aim: Aim, discordance: float
) -> tuple[Floats, Floats]:
    """Chances that a comparison of right and wrong answers is met with all items if the rest is as planned.

    Returns:
        The chance before the first answer, knowing how often the two differ, and the chance now.

    Args:
        gained: Items so far that only the candidate got right.
        lost: Items so far that only the reference got right.
        n_items: Items so far; 0 is before the first answer.
        n_planned: All items.
        discordance: Planned share of items on which the two differ.

    >>> aim = aim_of("improve", margin=0.0, alpha=0.05, effect=0.03)
    >>> before, now = change_chances([0, 10, 30], [0, 20, 10], [0, 300, 300], 693, aim=aim, discordance=0.1)
    >>> before.round(2).tolist(), now.round(2).tolist()
    ([0.8, 0.8, 0.7], [0.8, 0.03, 0.99])
    """
    won, worse, n = (np.asarray(value, np.float64) for value in (gained, lost, n_items))
    expected = (won + worse + PRIOR_DIFFERING) / (n + PRIOR_DIFFERING / discordance)
    share = np.clip(expected, 1e-6, 1.0)
    effect = np.minimum(aim.effect, share)  # no more items can be gained than differ

    def chance(gain: Floats, differing: Floats, rest: Floats) -> Floats:
        at_end = np.maximum(differing + rest * share, 1.0)
        needed = z_value(1 - aim.alpha) * np.sqrt(at_end) - aim.margin * n_planned + CONTINUITY
        if aim.gains:  # half an item less than the fewest that are enough
            least = contract.least_gain(np.sqrt(at_end) / n_planned, aim.min_gain) * n_planned
            needed = np.maximum(needed, np.maximum(least, 1.0) - 0.5)
        return _above(gain + rest * effect - needed, rest * (share - effect**2))

    nothing = np.zeros_like(won)
    return chance(nothing, nothing, n_planned + nothing), chance(won - worse, won + worse, n_planned - n)


def mean_chance(total: ArrayLike, n_items: ArrayLike, n_planned: int, *, sd: ArrayLike, aim: Aim) -> Floats:
    """Chance that a mean gain is bounded above -margin with all items: continuous metrics, or items in clusters.

    Args:
        total: Sum of the gains so far.
        sd: Standard deviation of one item's gain; of clustered items, what makes `sd / sqrt(n)` the mean's error.
    """
    value, n, spread = (np.asarray(each, np.float64) for each in (total, n_items, sd))
    rest = n_planned - n
    needed = z_value(1 - aim.alpha) * spread * n_planned**0.5 - aim.margin * n_planned
    if aim.gains:
        needed = np.maximum(needed, contract.least_gain(spread / n_planned**0.5, aim.min_gain) * n_planned)
    return _above(value + rest * aim.effect - needed, rest * spread**2)


def share_chance(
    n_right: ArrayLike, n_items: ArrayLike, n_planned: int, *, limit: float, effect: float, alpha: float
) -> Floats:
    """Chance that a share of right answers reaches an absolute limit with all items, exactly.

    Args:
        effect: Planned distance of the true share from the limit.

    >>> share_chance([60, 40], [60, 60], 149, limit=0.98, effect=0.05, alpha=0.05).tolist()
    [1.0, 0.0]
    """
    right, n = np.asarray(n_right, np.float64), np.asarray(n_items, np.float64)
    if limit <= 0:
        return np.ones(np.broadcast(right, n).shape)
    needed = float(exceeded_by(alpha, n_planned, min(limit, 1.0))) + 1
    return exceeds(needed - 1 - right, n_planned - n, min(1.0, limit + effect))


def gain_chances(
    gains: Floats, n_planned: int, *, aim: Aim, discordance: float, continuous: bool, clusters: Clusters
) -> tuple[float, float]:
    """Return the chance that a comparison is met: before the first answer, and now.

    Args:
        gains: Of each item so far, in the direction where more is better.
    """
    won, lost, n = int((gains > 0).sum()), int((gains < 0).sum()), len(gains)
    if not continuous and clusters is None:
        start, now = change_chances(won, lost, n, n_planned, aim=aim, discordance=discordance)
    else:
        start, now = mean_chance([0.0, gains.sum()], [0, n], n_planned, sd=_sd_of(gains, clusters), aim=aim)
    return float(start), float(now)


def value_chances(
    values: Floats, n_planned: int, *, limit: float, effect: float, alpha: float, continuous: bool, clusters: Clusters
) -> tuple[float, float]:
    """Return the chance that a mean reaches an absolute limit: before the first answer, and now.

    Args:
        values: Of each item so far, in the direction where more is better.
    """
    if not continuous and clusters is None:
        right, n = [0, int(values.sum())], [0, len(values)]
        start, now = share_chance(right, n, n_planned, limit=limit, effect=effect, alpha=alpha)
        return float(start), float(now)
    aim = Aim("anchor", alpha, effect=effect)
    return gain_chances(values - limit, n_planned, aim=aim, discordance=1.0, continuous=True, clusters=clusters)


def stops(now: ArrayLike, before: ArrayLike, *, stop_below: float, power: float) -> Bools:
    """Whether a rule with this chance, now and before the first answer, stops the run; NaN does not.

    A gate that had less than the wanted power from the start stops only at a smaller chance, in proportion: else it
    would stop whatever the answers are.
    """
    least = stop_below * np.minimum(1.0, np.asarray(before, np.float64) / power)
    return np.asarray(np.asarray(now, np.float64) < least)


@dataclass(frozen=True)
class PairedRule:
    """A comparison of right and wrong answers, for `run_in_batches`."""

    reference: Bools
    """Right answers of the reference (runs, items), in the order of answering."""
    kind: Kind = "improve"
    margin: float = 0.0
    min_gain: float | None = 0.0


@dataclass(frozen=True)
class BatchedRuns:
    """Where each run stopped, and its verdict."""

    n_items: NDArray[np.int64]
    """Items answered (runs,)."""
    codes: NDArray[np.int8]
    """PROMOTE, HOLD or BLOCK of `tasks/assess/contract.py` (runs,)."""
    stopped: Bools


def run_in_batches(
    candidate: Bools,
    rules: Sequence[PairedRule],
    *,
    looks: Sequence[int],
    effect: float,
    discordance: float,
    alpha: float = 0.05,
    stop_below: float = 0.2,
    power: float = 0.8,
) -> BatchedRuns:
    """Judge runs of a gate whose items are answered in batches: the verdict of `decide` on right and wrong answers.

    Args:
        candidate: Right answers of the candidate (runs, items), in the order of answering.
        looks: Items after each batch, rising (`tasks.tickets.draw.look_ends`); the last are all items.
        effect: Planned gain (`gates.power.effect`).
        discordance: Planned share of items on which two models differ.
        stop_below: 0 never stops.
    """
    n_runs, n_planned = candidate.shape
    aims = [aim_of(rule.kind, margin=rule.margin, min_gain=rule.min_gain, alpha=alpha, effect=effect) for rule in rules]
    n_items = np.full(n_runs, n_planned)
    for n in looks[-2::-1]:  # the last first, so that an earlier stop replaces a later one
        for rule, aim in zip(rules, aims, strict=True):
            if aim.kind != "guard":
                before, now = change_chances(
                    *_counts(candidate, rule, n), n, n_planned, aim=aim, discordance=discordance
                )
                n_items[stops(now, before, stop_below=stop_below, power=power)] = n
    stopped = n_items < n_planned
    codes = np.empty(n_runs, np.int8)
    for n in np.unique(n_items):
        here = n_items == n
        level = alpha * (HARM_AT_STOP if n < n_planned else 1)
        counts = [_counts(candidate, rule, n, here) for rule in rules]
        outcomes = [_outcome(*each, n, rule, alpha=level) for each, rule in zip(counts, rules, strict=True)]
        met, p_harm = (np.stack([getattr(each, name) for each in outcomes], -1) for name in ("met", "p_harm"))
        p_least = [
            contract.least_p(np.add(*each), n) if rule.kind == "guard" else np.zeros(int(here.sum()))
            for each, rule in zip(counts, rules, strict=True)
        ]
        codes[here] = contract.settle(met, p_harm, alpha=level, p_least=np.stack(p_least, -1)).max(axis=-1)
    codes[stopped] = np.maximum(codes[stopped], contract.HOLD)
    return BatchedRuns(n_items, codes, stopped)


def _counts(candidate: Bools, rule: PairedRule, n_items: int, runs: Bools | None = None) -> tuple[ArrayLike, ArrayLike]:
    """Items gained and lost among the first `n_items` (runs,)."""
    ours, theirs = candidate[:, :n_items], rule.reference[:, :n_items]
    if runs is not None:
        ours, theirs = ours[runs], theirs[runs]
    return (ours & ~theirs).sum(axis=1), (theirs & ~ours).sum(axis=1)


def _outcome(
    gained: ArrayLike, lost: ArrayLike, n_items: int, rule: PairedRule, *, alpha: float
) -> contract.RuleOutcome:
    if rule.kind == "guard":
        return contract.guard_outcome(gained, lost, n_items)
    if rule.kind == "anchor":
        return contract.anchor_outcome(gained, lost, n_items, margin=rule.margin, alpha=alpha)
    return contract.change_outcome(gained, lost, n_items, margin=rule.margin, alpha=alpha, min_gain=rule.min_gain)


def _sd_of(gains: Floats, clusters: Clusters) -> float:
    """Standard deviation of one item; of clustered items `sqrt(n)` times the error of their mean; NaN if unknown."""
    n = len(gains)
    belongs = np.arange(n) if clusters is None else clusters
    sums = np.bincount(belongs, gains - gains.mean())
    units = len(sums)
    sd = float(np.sqrt(units / (units - 1) * (sums**2).sum() / n)) if units > 1 else 0.0
    return sd if sd > 0 else float("nan")


def _above(expected: Floats, variance: Floats) -> Floats:
    """Probability that a normal variable of this mean and variance is above 0."""
    from scipy.special import ndtr

    chance: Floats = ndtr(expected / np.sqrt(np.maximum(variance, 1e-9)))
    return chance
