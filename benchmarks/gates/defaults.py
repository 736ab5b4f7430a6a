"""The gate that `init` writes, for a year: what it promotes, whether it finds better ones, and whether it freezes.

Group `defaults` of `make bench-gates`. Every week a candidate is compared with the champion on fresh items, in five
worlds, by the comparison that `tasks/start/champion_rule.py` chooses for the number of items, and its anchor; verdicts
come from `tasks/assess/contract.py`. Simulated, seeded and vectorised over the years.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.gates.promises import exact_law
from benchmarks.gates.simulated import ACCURACY, DISCORDANCE, Bools, both_right, shared_part
from benchmarks.measure import table
from flows.registry.state import RegistryState
from schemas.artifacts import Artifact
from schemas.gates import ChangeThreshold
from schemas.verdicts import Look
from tasks.assess.contract import HOLD, PROMOTE, anchor_outcome, change_outcome
from tasks.assess.pass_chance import Comparison, pass_chances
from tasks.assess.spare import most_judged, spare_items
from tasks.start.champion_rule import choose_comparison
from tasks.tickets.draw import hash_rank

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
    below_best: float
    """How far the champion ends below the best of its year, in accuracy; nine of ten years end nearer."""


def year(
    world: str, n: int, rule: tuple[ChangeThreshold, float], *, years: int, seed: int = 7, weeks: int = 52
) -> Year:
    """A year of weekly candidates on fresh items."""
    place = list(WORLDS).index(world)
    fate, luck = np.random.default_rng([seed, place]), np.random.default_rng([seed, place, n])  # all n have one fate
    champion = fate.normal(ACCURACY, SPREAD, years)
    anchor, is_anchor, best, regressions = champion.copy(), np.ones(years, np.bool_), champion.copy(), 0.0
    for week in range(1, weeks + 1):
        if world == "drift":
            champion, anchor, best = champion - DECAY, anchor - DECAY, best - DECAY
        true = np.clip(WORLDS[world](fate, week, champion), 0.3, 0.97)
        promoted, surpasses = _promoted(luck, (true, champion, anchor), is_anchor, n, *rule)
        regressions += float((promoted & (true < champion - REGRESSION)).mean())
        champion, is_anchor = np.where(promoted, true, champion), np.where(promoted, surpasses, is_anchor)
        anchor, best = np.where(promoted & surpasses, true, anchor), np.maximum(best, champion)
    return Year(regressions, float(champion.mean()), float(np.quantile(best - champion, 0.9)))


def _promoted(
    luck: np.random.Generator,
    models: tuple[Floats, Floats, Floats],
    is_anchor: Bools,
    n: int,
    change: ChangeThreshold,
    confidence: float,
) -> tuple[Bools, Bools]:
    """Which candidates pass the comparison with champion and anchor, and which are shown to be better than the anchor.

    Args:
        is_anchor: Where the champion is the anchor.
    """
    rho = shared_part(ACCURACY, DISCORDANCE)
    item = luck.standard_normal((len(models[0]), n), np.float32) * np.float32(rho**0.5)
    candidate, champion, anchor = (
        item + luck.standard_normal(item.shape, np.float32) * np.float32((1 - rho) ** 0.5)
        < norm.ppf(accuracy)[:, None].astype(np.float32)
        for accuracy in models
    )
    anchor = np.where(is_anchor[:, None], champion, anchor)
    alpha, margin = 1 - confidence, change.margin
    won, lost = (candidate & ~champion).sum(1), (champion & ~candidate).sum(1)
    met = change_outcome(won, lost, n, margin=margin, alpha=alpha, min_gain=change.least_gain).met
    won, lost = (candidate & ~anchor).sum(1), (anchor & ~candidate).sum(1)
    if change.mode == "refresh":
        met = met & anchor_outcome(won, lost, n, margin=margin, alpha=alpha).met
    surpasses = anchor_outcome(won, lost, n, margin=0.0, alpha=alpha).met
    return np.asarray(met), np.asarray(surpasses)


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


GROWTHS = (0.02, 0.05, 0.1, 0.2)
FIRST_ITEMS, WEEKS, UNUSED = 250, 104, 50


@dataclass(frozen=True)
class Reused:
    """Two years on a test split that grows, with the budget of verdicts that one set has."""

    frozen: int
    """Weeks with HOLD for the budget although `UNUSED` items had judged nothing."""
    held: int
    """Weeks with HOLD for the budget at all."""
    fewest: int
    """Items of the week with the fewest."""
    passed: float
    """Share of the candidates promoted that are worse than the champion by just the margin."""


def reuse(growth: float, most_items: int, *, years: int, budget: int = 20, seed: int = 7) -> Reused:
    """Two years of weekly candidates; the split gets this share of its first size each week.

    Items are chosen as a run chooses them (`tasks/assess/spare.py`), and counted as a run counts
    (`flows/registry/state.py`). All candidates are truly at the margin, the worst that must be promoted in at most 5 %;
    the champion's answers are those with which it was promoted, however often the items were used.
    """
    luck = np.random.default_rng([seed, round(1000 * growth), most_items])
    ids, counts, sets, judged = [f"0-{n}" for n in range(FIRST_ITEMS)], Counter[str](), dict[str, frozenset[str]](), []
    change, confidence = choose_comparison(min(most_items, FIRST_ITEMS), continuous=False)
    rho, state = shared_part(ACCURACY, DISCORDANCE), RegistryState(held_out=lambda: sets)
    n_all = FIRST_ITEMS + round(growth * FIRST_ITEMS) * WEEKS
    shared = luck.standard_normal((years, n_all), np.float32) * np.float32(rho**0.5)

    def answers(accuracy: Floats) -> Bools:
        own = luck.standard_normal(shared.shape, np.float32) * np.float32((1 - rho) ** 0.5)
        return np.asarray(shared + own < norm.ppf(accuracy)[:, None].astype(np.float32))

    true = np.full(years, ACCURACY)
    champion, frozen, held, fewest, passed = answers(true), 0, 0, most_items, 0.0
    for week in range(WEEKS):
        ids += [f"{week + 1}-{n}" for n in range(round(growth * FIRST_ITEMS))]
        ranked = sorted(ids, key=lambda name: hash_rank(name, seed=0))
        over = any(n > most_judged(budget) for n in counts.values())
        chosen = (
            spare_items(ranked, most_items, counts=counts, most=most_judged(budget)) if over else ranked[:most_items]
        )
        sets[f"s{week}"], candidate = frozenset(chosen), f"c{week}"
        artifacts = (Artifact(root=Path(), digest=digest) for digest in (f"s{week}", candidate))
        used = replace(state, judged=tuple(judged)).used_budget(*artifacts)
        judged.append(Look(held_out=f"s{week}", model=candidate))
        is_held, n_unused = used.verdicts + 1 > budget, sum(counts[name] == 0 for name in ids)
        counts.update(chosen)
        frozen, held, fewest = frozen + (is_held and n_unused >= UNUSED), held + is_held, min(fewest, len(chosen))
        worse = true - change.margin
        ours, here = answers(worse), np.array(sorted(map(ids.index, chosen)))
        won, lost = ((one & ~other)[:, here].sum(1) for one, other in ((ours, champion), (champion, ours)))
        alpha, least = 1 - confidence, change.least_gain
        met = change_outcome(won, lost, len(here), margin=change.margin, alpha=alpha, min_gain=least).met & (
            not is_held
        )
        passed += float(met.mean()) / WEEKS
        champion, true = np.where(met[:, None], ours, champion), np.where(met, worse, true)
    return Reused(frozen, held, fewest, passed)


def defaults(*, quick: bool) -> tuple[str, dict[str, object]]:
    """The tables and figures of the group."""
    years = 250 if quick else 2000
    rows, regressions, losses, below, powers, errors = [], {}, [], [], {}, []
    for n in SIZES:
        rule = choose_comparison(n, continuous=False)
        change, confidence = rule
        ours = {world: year(world, n, rule, years=years) for world in WORLDS}
        regressions[n] = max(each.regressions for each in ours.values())
        below.append(max(each.below_best for each in ours.values()))
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
    lasting = {
        (growth, most): reuse(growth, most, years=40 if quick else 400) for growth in GROWTHS for most in (248, 825)
    }
    rows = [
        [f"{100 * growth:g}", most, each.frozen, each.held, each.fewest, f"{100 * each.passed:.1f}"]
        for (growth, most), each in lasting.items()
    ]
    head = [
        "new tickets a week, %",
        "items at most",
        "frozen weeks",
        "weeks held",
        "fewest items",
        "passed at margin, %",
    ]
    body += f"\n\nTwo years on a test split of {FIRST_ITEMS} tickets that grows.\n\n{table(head, rows)}"
    return body, {
        "defaults_frozen_weeks": max(each.frozen for each in lasting.values()),
        "defaults_reuse_pass": round(max(each.passed for each in lasting.values()), 4),
        "defaults_regressions_year": round(max(regressions.values()), 3),
        "defaults_plus3": round(min(powers[n] for n in (500, 1000)), 4),
        "defaults_printed_off": round(max(errors), 4),
        "defaults_final_loss": round(max(losses), 4),
        "defaults_below_best": round(max(below), 4),
    }
