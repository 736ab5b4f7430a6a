"""The gate that `init` writes, for a year: what it promotes, whether it finds better ones, and whether it freezes.

Group `defaults` of `make bench-gates`. Every week a candidate is compared with the champion on fresh items, in five
worlds, by the comparison that `tasks/start/champion_rule.py` chooses for the number of items, and its anchor; verdicts
come from `tasks/assess/contract.py`. Simulated, seeded and vectorised over the years.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.gates.promises import exact_law
from benchmarks.gates.simulated import ACCURACY, DISCORDANCE, Bools, both_right, shared_part
from benchmarks.measure import table
from schemas.gates import ChangeThreshold
from tasks.assess.contract import HOLD, PROMOTE, anchor_outcome, change_outcome
from tasks.assess.pass_chance import Comparison, pass_chances
from tasks.start.champion_rule import choose_comparison

Floats = NDArray[np.float64]
SIZES = (100, 248, 500, 1000)
SPREAD, DECAY = 0.015, 0.0015
PLUS3, REGRESSION = 0.03, 0.01
SHOWN_BEFORE = ("independent", "drift")
FORMER, FORMER_ITEMS = (ChangeThreshold(mode="refresh", margin=0.05, min_gain=0.01), 0.95), 248
"""The comparison that `init` wrote before, and its most items: final accuracy must not be below."""
WORLDS: Mapping[str, Callable[[np.random.Generator, int, Floats], Floats]] = {
    "independent": lambda luck, _, champion: luck.normal(ACCURACY, SPREAD, len(champion)),
    "rot": lambda luck, week, champion: luck.normal(ACCURACY - 0.001 * week, SPREAD, len(champion)),
    "drift": lambda luck, _, champion: luck.normal(ACCURACY, SPREAD, len(champion)),
    "walk": lambda luck, _, champion: champion + luck.normal(-0.003, 0.012, len(champion)),
    "bugs": lambda luck, _, champion: np.where(
        luck.random(len(champion)) < 0.1,
        champion - luck.uniform(0.02, 0.06, len(champion)),
        luck.normal(ACCURACY, 0.008, len(champion)),
    ),
}
"""World -> true accuracy of a week's candidates. Under rot they get worse by a tenth of a point a week, under drift
what serves loses 0.15 points, a walk continues from the champion, and with bugs one feed in ten is broken."""


@dataclass(frozen=True)
class Year:
    """Means over the years."""

    regressions: float
    """Promoted candidates that are truly worse than the champion by more than a point."""
    final: float
    """The champion's true accuracy at the end, 0-1."""


def year(
    world: str, n: int, rule: tuple[ChangeThreshold, float], *, years: int, seed: int = 7, weeks: int = 52
) -> Year:
    """A year of weekly candidates on fresh items."""
    place = list(WORLDS).index(world)
    fate, luck = np.random.default_rng([seed, place]), np.random.default_rng([seed, place, n])  # all n have one fate
    champion = fate.normal(ACCURACY, SPREAD, years)
    first, regressions = champion.copy(), 0.0
    for week in range(1, weeks + 1):
        if world == "drift":
            champion, first = champion - DECAY, first - DECAY
        true = np.clip(WORLDS[world](fate, week, champion), 0.3, 0.97)
        promoted = _promoted(luck, (true, champion, first), n, *rule)
        regressions += float((promoted & (true < champion - REGRESSION)).mean())
        champion = np.where(promoted, true, champion)
    return Year(regressions, float(champion.mean()))


def _promoted(
    luck: np.random.Generator, models: tuple[Floats, Floats, Floats], n: int, change: ChangeThreshold, confidence: float
) -> Bools:
    """Which candidates pass the comparison with the champion, and the anchor of `refresh`."""
    rho = shared_part(ACCURACY, DISCORDANCE)
    item = luck.standard_normal((len(models[0]), n), np.float32) * np.float32(rho**0.5)
    candidate, champion, first = (
        item + luck.standard_normal(item.shape, np.float32) * np.float32((1 - rho) ** 0.5)
        < norm.ppf(accuracy)[:, None].astype(np.float32)
        for accuracy in models
    )
    first = np.where((models[1] == models[2])[:, None], champion, first)
    alpha, margin = 1 - confidence, change.margin
    won, lost = (candidate & ~champion).sum(1), (champion & ~candidate).sum(1)
    met = change_outcome(won, lost, n, margin=margin, alpha=alpha, min_gain=change.least_gain).met
    if change.mode == "refresh":
        won, lost = (candidate & ~first).sum(1), (first & ~candidate).sum(1)
        met = met & anchor_outcome(won, lost, n, margin=margin, alpha=alpha).met
    return np.asarray(met)


def found(n: int, rule: tuple[ChangeThreshold, float], gain: float) -> float:
    """Share of candidates of this true gain that are promoted, by the law of the counts."""
    change, confidence = rule
    both = both_right(ACCURACY + gain, ACCURACY, shared_part(ACCURACY, DISCORDANCE))

    def decide(n: int, gained: Floats, lost: Floats) -> NDArray[np.int64]:
        alpha = 1 - confidence
        outcome = change_outcome(gained, lost, n, margin=change.margin, alpha=alpha, min_gain=change.least_gain)
        return np.where(outcome.met, PROMOTE, HOLD)

    return exact_law((n,), 2 * (ACCURACY - both) + gain, gain, decide).promoted


def printed(n: int, rule: tuple[ChangeThreshold, float], gain: float) -> float:
    """The share that a plan prints."""
    change, confidence = rule
    return pass_chances(Comparison(change, n, DISCORDANCE, paired=True, alpha=1 - confidence), (gain,))[0]


def defaults(*, quick: bool) -> tuple[str, dict[str, object]]:
    """The tables and figures of the group."""
    years = 250 if quick else 2000
    rows, regressions, losses, powers, errors = [], {}, [], {}, []
    for n in SIZES:
        rule = choose_comparison(n, continuous=False)
        change, confidence = rule
        ours = {world: year(world, n, rule, years=years) for world in WORLDS}
        regressions[n] = max(each.regressions for each in ours.values())
        powers[n] = found(n, rule, PLUS3)
        errors.append(abs(powers[n] - printed(n, rule, PLUS3)))
        theirs = {world: year(world, min(n, FORMER_ITEMS), FORMER, years=years) for world in WORLDS}
        if n >= 500:
            losses += [theirs[world].final - ours[world].final for world in WORLDS]
        mode = f"{change.mode}, margin {change.margin:g}" if change.margin else change.mode
        rows.append([
            n, f"{mode}, {100 * confidence:g} %", f"{100 * powers[n]:.1f}", f"{100 * printed(n, rule, PLUS3):.1f}",
            *(f"{ours[world].regressions:.2f}, {100 * ours[world].final:.1f}" for world in WORLDS),
            *(f"{theirs[world].regressions:.2f}, {100 * theirs[world].final:.1f}" for world in SHOWN_BEFORE),
        ])  # fmt: skip
    before = [f"before: {each}" for each in SHOWN_BEFORE]
    head = ["items", "comparison", "+3 promoted, %", "printed, %", *WORLDS, *before]
    body = f"Regressions of more than a point in a year, final accuracy in %; fresh items.\n\n{table(head, rows)}"
    return body, {
        "defaults_regressions_year": round(max(regressions.values()), 3),
        "defaults_plus3": round(min(powers[n] for n in (500, 1000)), 4),
        "defaults_printed_off": round(max(errors), 4),
        "defaults_final_loss": round(max(losses), 4),
    }
