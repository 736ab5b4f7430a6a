"""How often gates promote what they should not: simulated candidates, our gate with its own code, and point rules.

Simulated candidates answer the same items as a champion with 80 % right answers. Their verdicts come from
`tasks/assess/contract.py`, the functions that decide about real candidates; a test sends the same tables through
`tasks.assess.gate.decide` and compares. Everything is seeded and vectorised over candidates. Model of two answers
to one item: both are right when a latent normal variable, shared in part, is under each model's threshold; the shared
part is set so that two models of 80 % disagree on 10 % of the items.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom, multivariate_normal, norm

from benchmarks.measure import table
from tasks.assess.contract import (
    HOLD,
    PROMOTE,
    RuleOutcome,
    anchor_outcome,
    change_outcome,
    guard_outcome,
    held_from,
    least_p,
    loss_chances,
    settle,
)  # fmt: skip
from tasks.assess.power import paired_items_needed

Counts = NDArray[np.int64]
Bools = NDArray[np.bool_]
ACCURACY, DISCORDANCE, MARGIN, SLICES = 0.8, 0.1, 0.02, 6
ALPHA = 0.05
SCENARIOS: Mapping[str, tuple[float, ...]] = {
    "-3 points": (-0.03,) * SLICES,
    "equal": (0.0,) * SLICES,
    "+3 points": (0.03,) * SLICES,
    "+3, one slice -15": (0.066,) * (SLICES - 1) + (-0.15,),
}


# Rules by which other tools accept a model; they only use counts


@dataclass(frozen=True)
class Seen:
    """The input of a peer's rule: counts over all n items."""

    gained: Counts
    lost: Counts
    both: Counts
    n: int

    @property
    def ours(self) -> NDArray[np.float64]:
        """The candidate's measured accuracy."""
        return np.asarray((self.both + self.gained) / self.n)

    @property
    def theirs(self) -> NDArray[np.float64]:
        """The champion's measured accuracy."""
        return np.asarray((self.both + self.lost) / self.n)

    @property
    def unpaired_z(self) -> NDArray[np.float64]:
        """z of the difference as if measured on different items, as in lm-eval's model_comparator."""
        variance = self.ours * (1 - self.ours) + self.theirs * (1 - self.theirs)
        return np.asarray((self.ours - self.theirs) / np.sqrt(variance / self.n))


Z = float(norm.ppf(1 - ALPHA))
TINY = 1e-9
"""Tolerance for rounding: a drop of exactly 0.05 must count as 0.05."""
PEERS: Mapping[str, Callable[[Seen], Bools]] = {
    "point: mean >= champion": lambda seen: np.asarray(seen.gained >= seen.lost),
    "point: drop <= 0.05": lambda seen: np.asarray(seen.theirs - seen.ours <= 0.05 + TINY),
    "MetricThreshold(0.78)": lambda seen: np.asarray(seen.ours >= 0.78 - TINY),
    "MetricThreshold(0.78, min_absolute_change=0.01)": lambda seen: np.asarray(
        (seen.ours >= 0.78 - TINY) & (seen.ours - seen.theirs >= 0.01 - TINY)
    ),
    "unpaired z, not significantly worse": lambda seen: np.asarray(seen.unpaired_z > -Z),
    "unpaired z, significantly better": lambda seen: np.asarray(seen.unpaired_z > Z),
}


# Simulated candidates, and each rule's verdicts


@dataclass(frozen=True)
class Tables:
    """Simulated outcomes, one row per candidate and one column per slice."""

    gained: Counts
    lost: Counts
    both: Counts
    n: int
    """Items of a slice."""


@cache
def shared_part(accuracy: float, discordance: float) -> float:
    """Correlation of the latent variables for which two models of this accuracy disagree this often."""
    return float(brentq(lambda rho: 2 * (accuracy - both_right(accuracy, accuracy, rho)) - discordance, 0.01, 0.9999))


@cache
def both_right(first: float, second: float, rho: float) -> float:
    """Share of items that models of these accuracies both get right."""
    thresholds = [float(norm.ppf(first)), float(norm.ppf(second))]
    return float(multivariate_normal.cdf(thresholds, mean=[0.0, 0.0], cov=[[1.0, rho], [rho, 1.0]]))


def draw(generator: np.random.Generator, reps: int, n_items: int, deltas: tuple[float, ...]) -> Tables:
    """Candidates whose accuracy differs from the champion's by `deltas`, slice by slice."""
    rho, n = shared_part(ACCURACY, DISCORDANCE), n_items // len(deltas)
    cells = []
    for delta in deltas:
        both = both_right(ACCURACY + delta, ACCURACY, rho)
        shares = [both, ACCURACY + delta - both, ACCURACY - both]
        cells.append(generator.multinomial(n, [*shares, 1 - sum(shares)], size=reps))
    table = np.stack(cells, axis=1)
    return Tables(gained=table[..., 1], lost=table[..., 2], both=table[..., 0], n=n)


def guarded(rule: RuleOutcome, gained: Counts, lost: Counts, sizes: Counts, *, hold: bool = True) -> NDArray[np.int8]:
    """The gate's verdict: one rule against the champion, every slice guarded, all tests in one Holm family.

    Args:
        gained: Items of each slice that only the candidate got right, shape (candidates, slices), as `lost`.
        sizes: Items of each slice.
        hold: Whether a slice whose loss is only probable holds; False only to measure what that costs.
    """
    slices = guard_outcome(gained, lost, sizes)
    gains = (gained - lost) / sizes
    chances, _ = loss_chances(gains, (gained + lost) / sizes - gains**2, sizes)
    met = np.concatenate([rule.met[:, None], slices.met], axis=1)
    p_harm = np.concatenate([rule.p_harm[:, None], slices.p_harm], axis=1)
    p_least = np.concatenate([np.zeros((len(met), 1)), least_p(gained + lost, sizes)], axis=1)
    codes = settle(met, p_harm, alpha=ALPHA, p_least=p_least).max(axis=1)
    probable = (chances > held_from(gained.shape[1])).any(axis=1)
    return np.asarray(np.where(probable & hold & (codes == PROMOTE), HOLD, codes), np.int8)


def champion_rule(gained: Counts, lost: Counts, n: int, *, mode: str) -> RuleOutcome:
    """The rule against the champion, `improve` or `refresh`."""
    if mode == "improve":
        return change_outcome(gained, lost, n, margin=0.0, alpha=ALPHA)
    return change_outcome(gained, lost, n, margin=MARGIN, alpha=ALPHA, min_gain=None)


def our_gate(tables: Tables, *, mode: str) -> Bools:
    """Which candidates tunegate's gate promotes."""
    gained, lost = tables.gained, tables.lost
    rule = champion_rule(gained.sum(1), lost.sum(1), tables.n * gained.shape[1], mode=mode)
    return np.asarray(guarded(rule, gained, lost, np.full(gained.shape[1], tables.n)) == PROMOTE)


def promoted_shares(*, n_items: int, reps: int, seed: int) -> dict[str, dict[str, float]]:
    """Rule -> scenario -> share of candidates that it promotes."""
    found: dict[str, dict[str, float]] = {}
    for index, (scenario, deltas) in enumerate(SCENARIOS.items()):
        tables = draw(np.random.default_rng([seed, n_items, index]), reps, n_items, deltas)
        seen = Seen(tables.gained.sum(1), tables.lost.sum(1), tables.both.sum(1), tables.n * SLICES)
        verdicts = {f"tunegate {mode}": our_gate(tables, mode=mode) for mode in ("improve", "refresh")}
        verdicts |= {name: rule(seen) for name, rule in PEERS.items()}
        for name, promoted in verdicts.items():
            found.setdefault(name, {})[scenario] = float(promoted.mean())
    return found


def false_pass(n: int, margin: float, discordance: float) -> float:
    """Exact probability that the interval code passes a candidate whose true difference is -margin."""
    won, lost, chance = _at_the_margin(n, margin, discordance)
    return float(chance[anchor_outcome(won, lost, n, margin=margin, alpha=ALPHA).met].sum())


def false_block(n: int, margin: float, discordance: float) -> float:
    """Exact probability that such a candidate is blocked as worse than the margin."""
    won, lost, chance = _at_the_margin(n, margin, discordance)
    return float(chance[anchor_outcome(won, lost, n, margin=margin, alpha=ALPHA).p_harm <= ALPHA].sum())


def _at_the_margin(n: int, margin: float, discordance: float) -> tuple[Counts, Counts, NDArray[np.float64]]:
    """Items won and lost, and their probability if the true difference is -margin."""
    spread = 7 * (n * discordance * (1 - discordance)) ** 0.5 + 7
    differing = np.arange(max(0, int(n * discordance - spread)), min(n, int(n * discordance + spread)) + 1)
    won, differ = np.meshgrid(np.arange(differing.max() + 1), differing)
    share = max(0.0, (discordance - margin) / 2 / discordance)
    chance = binom.pmf(won, differ, share) * binom.pmf(differ, n, discordance)
    return won, np.maximum(differ - won, 0), np.where(won <= differ, chance, 0.0)


def worst_false_pass(*, quick: bool) -> tuple[float, int, float, float]:
    """The largest false-pass rate, with its n, discordance and margin."""
    sizes = (20, 24, 50, 100, 2000) if quick else (*range(20, 101, 2), 135, 150, 200, 300, 500, 700, 1000, 2000)
    shares = (0.02, 0.1, 0.28, 0.4) if quick else tuple(np.arange(0.02, 0.401, 0.02).round(2).tolist())
    cells = [
        (false_pass(n, margin, share), n, share, margin)
        for n in sizes
        for share in shares
        for margin in (0.0, 0.01, 0.015, 0.02, 0.03, 0.05)
        if share >= margin
    ]
    return max(cells)


def year_of_retrains(*, n_items: int, slow_rot: bool, reps: int, seed: int) -> dict[str, tuple[float, float]]:
    """Rule -> promoted regressions of more than a point per year, and the champion's true accuracy at the end.

    Every week a candidate is compared with the champion on new items. Independent retrains have accuracy N(.80, .015);
    under slow rot each is the champion - .005 +- .01. The anchor is the first champion. All rules get the same draws.
    """
    generator = np.random.default_rng([seed, n_items, int(slow_rot)])
    rho = shared_part(ACCURACY, DISCORDANCE)
    names = ["tunegate improve", "tunegate refresh", *PEERS]
    champion = np.full((len(names), reps), ACCURACY)
    regressions = np.zeros((len(names), reps))
    for _ in range(52):
        luck = generator.normal(0, 1, reps)
        item = generator.standard_normal((reps, n_items), np.float32) * np.float32(rho**0.5)
        own = [
            item + generator.standard_normal(item.shape, np.float32) * np.float32((1 - rho) ** 0.5) for _ in range(3)
        ]
        first = own[2] < norm.ppf(ACCURACY)
        for row, name in enumerate(names):
            rules = champion[row]
            true = np.clip(rules - 0.005 + 0.01 * luck if slow_rot else ACCURACY + 0.015 * luck, 0.01, 0.99)
            ours = own[0] < norm.ppf(true)[:, None].astype(np.float32)
            theirs = own[1] < norm.ppf(rules)[:, None].astype(np.float32)
            promoted = _weekly(name, ours, theirs, first, n_items)
            regressions[row] += promoted & (true < rules - 0.01)
            champion[row] = np.where(promoted, true, rules)
    return {name: (float(regressions[i].mean()), float(champion[i].mean())) for i, name in enumerate(names)}


def _weekly(name: str, ours: Bools, theirs: Bools, first: Bools, n: int) -> Bools:
    gained, lost, both = (ours & ~theirs).sum(1), (theirs & ~ours).sum(1), (ours & theirs).sum(1)
    if name in PEERS:
        return PEERS[name](Seen(gained, lost, both, n))
    mode = name.split()[-1]
    outcomes = [champion_rule(gained, lost, n, mode=mode)]
    if mode == "refresh":
        won, short = (ours & ~first).sum(1), (first & ~ours).sum(1)
        outcomes.append(anchor_outcome(won, short, n, margin=MARGIN, alpha=ALPHA))
    met = np.stack([outcome.met for outcome in outcomes], axis=1)
    p_harm = np.stack([outcome.p_harm for outcome in outcomes], axis=1)
    return np.asarray((settle(met, p_harm, alpha=ALPHA) == PROMOTE).all(axis=1))


def measure(*, quick: bool, seed: int = 20260601) -> tuple[str, dict[str, object]]:
    """The tables as Markdown, and the figures of the last line."""
    reps, years = (4000, 60) if quick else (40_000, 1000)
    sizes = (200, 1000) if quick else (200, 500, 1000, 2000)
    by_size = {n: promoted_shares(n_items=n, reps=reps, seed=seed) for n in sizes}
    promoted = table(
        ["rule", "n", *SCENARIOS],
        [
            [name, n, *(f"{100 * cell:.1f}" for cell in cells.values())]
            for n, shares in by_size.items()
            for name, cells in shares.items()
        ],
    )
    rate, n, share, margin = worst_false_pass(quick=quick)
    worlds = {
        (rot, n): year_of_retrains(n_items=n, slow_rot=rot, reps=years, seed=seed)
        for rot in (False, True)
        for n in (200, 1000)
    }
    retrained = table(
        ["rule", "independent, n=200", "n=1000", "slow rot, n=200", "n=1000"],
        [
            [name, *(f"{world[name][0]:.2f} ({100 * world[name][1]:.1f})" for world in worlds.values())]
            for name in worlds[False, 200]
        ],
    )
    body = "\n\n".join(
        [
            f"P(promote) in %, {reps:,} candidates per cell, {SLICES} slices; champion {ACCURACY:.0%} right, two equal "
            f"models disagree on {DISCORDANCE:.0%} of the items.",
            promoted,
            f"False-pass of the interval code (nominal 5 %), exact: at most {100 * rate:.2f} %, at n={n}, "
            f"discordance {share:g}, margin {margin:g}.",
            f"A year of weekly retrains on fresh items, {years:,} years: regressions of more than a point promoted per "
            "year, and the champion's true accuracy at the end.",
            retrained,
        ]
    )
    ours, peer = by_size[1000]["tunegate improve"], by_size[1000]["point: mean >= champion"]
    figures: dict[str, object] = {
        "p_minus3": ours["-3 points"],
        "p_equal": ours["equal"],
        "p_plus3": ours["+3 points"],
        "p_slice": ours["+3, one slice -15"],
        "peer_p_equal": peer["equal"],
        "peer_p_slice": peer["+3, one slice -15"],
        "false_pass_max": rate,
        "regressions_per_year": {name: round(year[0], 3) for name, year in worlds[False, 1000].items()},
        "items_for_5_points": paired_items_needed(0.05, discordance=DISCORDANCE),
        "candidates": reps,
        "quick": quick,
    }
    return body, figures
