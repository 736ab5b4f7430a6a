"""What the gate promises, each promise as a number with its bar.

Error rates of one rule, and what stopping early costs and saves, are exact: the law of (gained, lost) is carried from
batch to batch. Years, slices and arms are simulated, seeded and vectorised. All verdicts come from
`tasks/assess/contract.py`, `interim.py` and `looks.py`, the code that decides about real candidates. Knows nothing of
other tools' rules.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from scipy.stats import binom, norm

from benchmarks.gates.draws import TAILS
from benchmarks.gates.judge_calls import calls_for_identical_answers
from benchmarks.gates.simulated import ACCURACY, ALPHA, DISCORDANCE, MARGIN, champion_rule, guarded, shared_part
from benchmarks.measure import table
from schemas.gates import GateRule, GatesSpec, LooksSpec
from schemas.metrics import traits_of
from schemas.verdicts import UsedBudget
from tasks.assess.contract import BLOCK, HOLD, PROMOTE, change_outcome, settle  # fmt: skip
from tasks.assess.interim import HARM_AT_STOP, PairedRule, aim_of, change_chances, run_in_batches, stops
from tasks.assess.judge import ChangeTest, ValueTest, judge_change, judge_value
from tasks.assess.labels import fill_equal
from tasks.assess.looks import levels_of
from tasks.assess.weigh import MIN_CONTINUOUS_ITEMS
from tasks.tickets.draw import look_ends

AT_MOST: Mapping[str, float] = {
    "p_minus3": 0.005, "p_equal": 0.06, "p_slice": 0.01, "false_pass_max": 0.05,
    "stop_promoted_extra": 0, "power_loss": 0.02, "labels_share_d5": 0.08, "labels_share_d10": 0.15,
    "labels_share_d20": 0.30, "labels_changed": 0, "slice2_pass": 0.07, "many_slices_block": 0.05,
    "best_of_4_block": 0.05, "refresh_equal": 0.20, "refresh_year": 0.20, "looks3_items": 730, "tails_pass": 0.065,
    "collapse_not_blocked": 0, "judge_calls_identical": 0,
    "margin_block": 0.05, "better_block": 0.05, "slice6_torn_pass": 0.07, "slice2_torn_pass": 0.07,
    "slice20_pass": 0.35, "slices_power_loss": 0.02, "metrics_misjudged": 0, "noisy_pass": 0.05,
    "latency_equal_block": 0.05, "latency_limit_pass": 0.065, "latency_limit_block": 0.065,
    "defaults_frozen_weeks": 0, "defaults_reuse_pass": 0.05,
    "defaults_regressions_year": 0.20, "defaults_printed_off": 0.03, "defaults_final_loss": 0.01,
    "defaults_below_best": 0.015, "resume_equal_pass": 0.05, "edited_equal_pass": 0.05,
    "file_verdicts_unequal": 0,
}  # fmt: skip
AT_LEAST: Mapping[str, float] = {
    "p_plus3": 0.8,
    "refresh_plus3": 0.95,
    "defaults_plus3": 0.8,
    "latency_equal_pass": 0.8,
    "resume_plus3": 0.78,
}
ABOUT: Mapping[str, str] = {
    "p_minus3": "`improve`, n=1000: promoted if 3 points worse",
    "p_equal": "`improve`, n=1000: promoted if equal",
    "p_plus3": "`improve`, n=1000: promoted if 3 points better",
    "p_slice": "`improve`, n=1000: promoted although one of six slices falls by 15 points",
    "false_pass_max": "a rule is met at its limit, any n and discordance, exact",
    "stop_promoted_extra": "runs of 10,000 that stops promote and all items do not",
    "power_loss": "chance to be promoted that stops cost a candidate 3 points better, exact",
    "labels_share_d5": "labels of a candidate 3 points better, share of today's items, discordance 5 %, exact",
    "labels_share_d10": "the same, discordance 10 %",
    "labels_share_d20": "the same, discordance 20 %",
    "labels_changed": "decisions of 1,000 that change with the labels of equal answers",
    "slice2_pass": "promoted although a slice of 2 % falls by 15 points, topped up to 100 items",
    "many_slices_block": "equal candidates blocked, 7 to 80 slices",
    "best_of_4_block": "equal candidates blocked, compared with four prompting arms",
    "refresh_equal": "`refresh`, n=1000: promoted if equal, exact",
    "refresh_plus3": "`refresh`, n=1000: promoted if 3 points better, exact",
    "refresh_year": "`refresh`: regressions of more than a point promoted in a year, worst of four worlds",
    "looks3_items": "items of the last of three looks for 80 % power at 3 points, exact",
    "tails_pass": "continuous scores with a heavy tail, truly at the limit: met",
    "collapse_not_blocked": "3 % right, 89 % before, 100 customers: not blocked, of seven splits of the error rate",
    "judge_calls_identical": "calls of a judge for 100 pairs of identical answers",
    "margin_block": "blocked as worse than a margin although just at it, any n and discordance, exact",
    "better_block": "chrF: 85 % of the answers 0.02 worse, 15 % 0.25 better, 12 slices of 40: blocked, by `decide`",
    "slice6_torn_pass": "promoted although one of six slices falls by 15 points, 25 % of its items differ, n=1000",
    "slice2_torn_pass": "the same of a slice of 2 %, topped up to the items that the verdict names",
    "slice20_pass": "promoted although one of 20 slices of 50 items falls by 15 points, 20 % of its items differ",
    "slices_power_loss": "chance to be promoted that the hold for a probable loss costs a candidate 3 points better, "
    "worst of 6 to 40 slices",
    "latency_equal_block": "p95 of seconds at most 1.25 times, 16, 64 and 250 items timed: equal model blocked",
    "latency_limit_pass": "the same: a model that is slower by just 1.25 passes (nominal 5 %)",
    "latency_limit_block": "the same: it is blocked (nominal 5 %)",
    "latency_equal_pass": "the same, 250 items: an equal model passes, worst of two correlations",
    "noisy_pass": "`no_worse` whose margin allows for 5, 10 or 20 % wrong references: a true loss of 5 points passes",
    "metrics_misjudged": "metrics of a user that may compare although an answer with all labels meets them, or may not "
    "although it does not, of two each",
    "resume_equal_pass": "declared looks at a growing set: equal model promoted by the last, worst of several designs, "
    "both spending functions, 5 to 20 % differing, and of which look is the first; exact",
    "edited_equal_pass": "six settings of `improve` tried on one candidate: equal model promoted by one, worst of 1, 3 "
    "and 6 declared looks and both spending functions; exact",
    "resume_plus3": "looks at 248, 496 and 744 items, equal spending: promoted by the last if 3 points better, exact",
    "file_verdicts_unequal": "`gate check` on two files: pairs whose verdict, reason or a figure is not the run's",
    "defaults_frozen_weeks": "gate of `init`: weeks of two years with HOLD for the budget while 50 items are unused",
    "defaults_reuse_pass": "gate of `init`: promoted at the margin, two years on items that are used again",
    "defaults_regressions_year": "gate of `init`: regressions of more than a point promoted in a year, worst of five "
    "worlds and 100, 248, 500 and 1,000 fresh items",
    "defaults_plus3": "gate of `init`: promoted if 3 points better, 500 and 1,000 items, exact",
    "defaults_printed_off": "gate of `init`: distance of that share from what a plan prints, 100 to 1,000 items",
    "defaults_final_loss": "gate of `init`: the champion's accuracy after a year below that with the gate before, "
    "500 and 1,000 items, worst of five worlds",
    "defaults_below_best": "gate of `init`: how far the champion ends a year below its best so far, worst tenth of the "
    "years, worst of five worlds and 100, 248, 500 and 1,000 fresh items",
}
ITEMS_YEAR: Mapping[str, float] = {"independent": 0.50, "rot": 0.65, "decay": 0.65, "equal": 0.70}
"""Items answered in a year with stops, as a share of those without, at most."""
EFFECT, STOP_BELOW, POWER, BATCHES = 0.03, 0.2, 0.8, 10
TODAY = {0.05: 330, 0.1: 693, 0.2: 1383}
"""Discordance -> items with which `improve` finds 3 points at 80 % power without stops."""
DIFFERING = 1.4
"""Answers that differ, per answer that is right in one model alone: as in real pairs (`league.py`), 1.2 to 1.9."""
LABEL_WORLDS: Mapping[str, float] = {"plus3": EFFECT, "equal": 0.0, "minus3": -EFFECT}
GO_ON = -1
SLICE_SHARES = (0.5, 0.2, 0.12, 0.08, 0.05, 0.03, 0.02)
TOP_UP = 100
Decide = Callable[[int, NDArray[np.float64], NDArray[np.float64]], NDArray[np.int64]]
"""(items, gained, lost) -> PROMOTE, HOLD, BLOCK or GO_ON."""


def promises(*, quick: bool, seed: int = 20260601) -> dict[str, object]:
    """All figures of the promises."""

    def generator() -> np.random.Generator:
        return np.random.default_rng(seed)

    years = {
        mode: {world: year(world, mode=mode, reps=40 if quick else 300, seed=seed) for world in YEARS}
        for mode in ("improve", "refresh")
    }
    return {
        **stopping(),
        "stop_promoted_extra": promoted_by_stopping(generator(), 10_000),
        "items_year": {world: found.items for world, found in years["improve"].items()},
        "refresh_year": max(found.regressions for found in years["refresh"].values()),
        "labels_made": {name: labels_made(generator(), delta, 2000) for name, delta in LABEL_WORLDS.items()},
        "labels_changed": changed_by_equal_labels(generator(), 1000),
        "slice2_pass": slice_pass(generator(), 20_000, small_slice_falls()),
        "many_slices_block": max(many_slices(generator(), n, 10_000) for n in (7, 20, 40, 80)),
        "best_of_4_block": best_of(generator(), 4, 2000 if quick else 20_000),
        "refresh_equal": refresh_share(0.0),
        "refresh_plus3": refresh_share(EFFECT),
        "looks3_items": items_of_three_looks(),
        "tails_pass": tails_pass(generator(), 1000),
        "collapse_not_blocked": collapse_not_blocked(generator()),
        "judge_calls_identical": calls_for_identical_answers(100),
    }  # fmt: skip


def missed(figures: Mapping[str, object]) -> list[str]:
    """Names of the figures that miss their bar; one that is not a number misses it."""
    values = {name: float(str(figures[name])) for name in (*AT_MOST, *AT_LEAST)}
    found = [name for name, bar in AT_MOST.items() if not values[name] <= bar]
    found += [name for name, bar in AT_LEAST.items() if not values[name] >= bar]
    asked = cast(Mapping[str, float], figures["items_year"])
    return found + [f"items_year {world}" for world, bar in ITEMS_YEAR.items() if not asked[world] <= bar]


def promise_table(figures: Mapping[str, object]) -> str:
    """Every bar, what was measured, and what it is about."""
    asked = cast(Mapping[str, float], figures["items_year"])
    rows = [[ABOUT[name], name, figures[name], f"at most {bar:g}"] for name, bar in AT_MOST.items()]
    rows += [[ABOUT[name], name, figures[name], f"at least {bar:g}"] for name, bar in AT_LEAST.items()]
    rows += [
        [f"items answered in a year with stops, share ({world})", "items_year", asked[world], f"at most {bar:g}"]
        for world, bar in ITEMS_YEAR.items()
    ]
    return table(["what", "figure", "measured", "bar"], rows)


# The exact law of one rule, batch by batch


@dataclass(frozen=True)
class Law:
    """Probabilities of a verdict, and expected items."""

    promoted: float
    blocked: float
    items: float


def exact_law(ends: Sequence[int], discordance: float, delta: float, decide: Decide) -> Law:
    """The law of a rule that decides after these numbers of items.

    Args:
        ends: Items answered after each batch, rising.
        discordance: Share of items that exactly one of the two models gets right.
        delta: True difference of their shares of right answers.
    """
    share_gained, share_lost = (discordance + delta) / 2, (discordance - delta) / 2
    most = math.ceil(ends[-1] * max(share_gained, share_lost) + 6.5 * math.sqrt(ends[-1] * discordance / 2) + 8)
    gained, lost = np.meshgrid(np.arange(most + 1.0), np.arange(most + 1.0), indexing="ij")
    law, before = np.zeros((most + 1, most + 1)), 0
    law[0, 0] = 1.0
    promoted = blocked = items = 0.0
    for n in ends:
        items += float(law.sum()) * (n - before)
        law = np.maximum(fftconvolve(law, _batch(n - before, share_gained, share_lost))[: most + 1, : most + 1], 0.0)
        codes = decide(n, gained, lost)
        promoted, blocked = promoted + float(law[codes == PROMOTE].sum()), blocked + float(law[codes == BLOCK].sum())
        law, before = np.where(codes == GO_ON, law, 0.0), n
    return Law(promoted, blocked, items)


@cache
def _batch(n: int, share_gained: float, share_lost: float) -> NDArray[np.float64]:
    """Probabilities of (gained, lost) in n items; cells below 1e-15 at the ends are left out."""
    most = int(binom.isf(1e-15, n, max(share_gained, share_lost))) + 1
    count = np.arange(min(n, most) + 1)
    won, worse = count[:, None], count[None, :]
    chance = binom.pmf(won, n, share_gained) * binom.pmf(worse, np.maximum(n - won, 0), share_lost / (1 - share_gained))
    return np.where(won + worse <= n, chance, 0.0)


def stopping_rule(n_planned: int, discordance: float) -> Decide:
    """`improve` on all items, with stops when it can hardly be met any more."""
    aim = aim_of("improve", margin=0.0, alpha=ALPHA, effect=EFFECT)

    def decide(n: int, gained: NDArray[np.float64], lost: NDArray[np.float64]) -> NDArray[np.int64]:
        outcome = change_outcome(gained, lost, n, margin=0.0, alpha=ALPHA)
        if n == n_planned:
            return np.where(outcome.p_harm <= ALPHA, BLOCK, np.where(outcome.met, PROMOTE, HOLD))
        before, now = change_chances(gained, lost, n, n_planned, aim=aim, discordance=discordance)
        stopped = stops(now, before, stop_below=STOP_BELOW, power=POWER)
        return np.where(stopped, np.where(outcome.p_harm <= HARM_AT_STOP * ALPHA, BLOCK, HOLD), GO_ON)

    return decide


def with_stops(n: int, discordance: float, delta: float) -> Law:
    """`improve` with ten batches."""
    return exact_law(_ends(n), discordance, delta, stopping_rule(n, discordance))


def without_stops(n: int, discordance: float, delta: float) -> Law:
    """`improve` on all items at once."""
    return exact_law((n,), discordance, delta, stopping_rule(n, discordance))


def _ends(n: int) -> tuple[int, ...]:
    return look_ends(n, batches=BATCHES, batch_size=1)


def stopping() -> dict[str, object]:
    """What stops cost and save, exactly."""
    losses, equals, shares = [], [], {}
    for discordance, today in TODAY.items():
        losses.append(
            without_stops(today, discordance, EFFECT).promoted - with_stops(today, discordance, EFFECT).promoted
        )
        equals.append(with_stops(today, discordance, 0.0))
        n = items_for_power(discordance)
        asked = with_stops(n, discordance, EFFECT).items
        shares[f"labels_share_d{100 * discordance:.0f}"] = round(DIFFERING * discordance * asked / today, 4)
    return {
        "power_loss": round(max(losses), 4),
        "stop_false_pass": round(max(law.promoted for law in equals), 4),
        "stop_equal_block": round(max(law.blocked for law in equals), 4),
        **shares,
    }


def items_for_power(discordance: float) -> int:
    """Items with which `improve` finds 3 points at 80 % power although it may stop."""
    low, high = TODAY[discordance], math.ceil(1.1 * TODAY[discordance])
    while high - low > max(2, low // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if with_stops(middle, discordance, EFFECT).promoted >= POWER else (middle, high)
    return high


def refresh_share(delta: float, n: int = 1000) -> float:
    """Probability that `refresh` promotes, exactly."""

    def decide(n: int, gained: NDArray[np.float64], lost: NDArray[np.float64]) -> NDArray[np.int64]:
        outcome = change_outcome(gained, lost, n, margin=MARGIN, alpha=ALPHA, min_gain=None)
        return np.where(outcome.met, PROMOTE, HOLD)

    return round(exact_law((n,), DISCORDANCE, delta, decide).promoted, 4)


def items_of_three_looks(discordance: float = 0.1) -> int:
    """Items of the last of three looks at a growing set with which they together find 3 points at 80 % power."""
    gates = GatesSpec(rules=(GateRule(metric="exact", value_threshold=0.5),), looks=LooksSpec(max=3))

    def power(n: int) -> float:
        ends = (n // 3, 2 * n // 3, n)
        levels = {
            size: levels_of(gates, UsedBudget(looks=place, nested=ends[:place]), n_items=size).met
            for place, size in enumerate(ends)
        }

        def decide(size: int, gained: NDArray[np.float64], lost: NDArray[np.float64]) -> NDArray[np.int64]:
            met = change_outcome(gained, lost, size, margin=0.0, alpha=levels[size]).met
            return np.where(met, PROMOTE, HOLD if size == n else GO_ON)

        return exact_law(ends, discordance, EFFECT, decide).promoted

    low, high = TODAY[discordance], 2 * TODAY[discordance]
    while high - low > 4:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


# Whole runs, simulated


def latent(
    generator: np.random.Generator, accuracies: Sequence[NDArray[np.float64]], n_items: int
) -> list[NDArray[np.bool_]]:
    """Right answers of models with these accuracies, one per run, to the same items; shape (runs, items) each."""
    rho, runs = shared_part(ACCURACY, DISCORDANCE), len(accuracies[0])
    item = generator.standard_normal((runs, n_items), np.float32) * np.float32(rho**0.5)
    found = []
    for accuracy in accuracies:
        own = generator.standard_normal((runs, n_items), np.float32) * np.float32((1 - rho) ** 0.5)
        found.append(item + own < norm.ppf(accuracy)[:, None].astype(np.float32))
    return found


def promoted_by_stopping(generator: np.random.Generator, runs: int) -> int:
    """Runs that are promoted with stops and not without, of candidates between 3 points worse and 6 better."""
    found, n = 0, TODAY[0.1]
    for mode in ("improve", "refresh"):
        deltas = generator.uniform(-0.03, 0.06, runs // 2)
        candidate, champion, first = latent(generator, [ACCURACY + deltas, *[np.full(runs // 2, ACCURACY)] * 2], n)
        rules = [PairedRule(champion)]
        if mode == "refresh":
            rules = [PairedRule(champion, "refresh", MARGIN, None), PairedRule(first, "anchor", MARGIN)]
        with_, without = (
            run_in_batches(candidate, rules, looks=_ends(n), effect=EFFECT, discordance=DISCORDANCE, stop_below=below)
            for below in (STOP_BELOW, 0.0)
        )
        found += int(((with_.codes == PROMOTE) & (without.codes != PROMOTE)).sum())
    return found


YEARS: Mapping[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    "independent": lambda _, luck: ACCURACY + 0.015 * luck,
    "rot": lambda champion, luck: champion - 0.005 + 0.01 * luck,
    "decay": lambda _, luck: ACCURACY + 0.015 * luck,
    "equal": lambda champion, _: champion,
}
"""World -> true accuracy of a week's candidate, from the champion's and luck. Under decay each model that serves loses
0.2 points a week, because the tickets change; candidates learn from the present ones."""
DECAY = 0.002


@dataclass(frozen=True)
class Year:
    """Means over the simulated years."""

    items: float
    """Items answered, as a share of all."""
    regressions: float
    """Promoted candidates that are truly worse than the champion by more than a point."""
    final: float
    """The champion's true accuracy at the end."""


def year(world: str, *, mode: str, reps: int, seed: int, n: int = 1000, weeks: int = 52) -> Year:
    """A year of weekly candidates on fresh items, with stops."""
    generator = np.random.default_rng([seed, len(world), n])
    champion, first = np.full(reps, ACCURACY), np.full(reps, ACCURACY)
    asked = regressions = 0.0
    for _ in range(weeks):
        if world == "decay":
            champion, first = champion - DECAY, first - DECAY
        true = np.clip(YEARS[world](champion, generator.normal(0, 1, reps)), 0.3, 0.99)
        ours, theirs, earliest = latent(generator, [true, champion, first], n)
        rules = [PairedRule(theirs)]
        if mode == "refresh":
            rules = [PairedRule(theirs, "refresh", MARGIN, None), PairedRule(earliest, "anchor", MARGIN)]
        runs = run_in_batches(ours, rules, looks=_ends(n), effect=EFFECT, discordance=DISCORDANCE)
        promoted = runs.codes == PROMOTE
        asked += float(runs.n_items.mean()) / n / weeks
        regressions += float((promoted & (true < champion - 0.01)).mean())
        champion = np.where(promoted, true, champion)
    return Year(round(asked, 4), round(regressions, 4), round(float(champion.mean()), 4))


def changed_by_equal_labels(generator: np.random.Generator, runs: int, n: int = 400) -> int:
    """Decisions that change if the labels of equal answers are replaced by coins: verdict, bounds, p-value."""
    changed = 0
    test = ChangeTest(traits_of("exact"), 1 - ALPHA, "champion")
    for _ in range(runs):
        differs = generator.random(n) < DIFFERING * DISCORDANCE
        labels = (generator.random((2, n)) < ACCURACY).astype(np.float64)
        labels[1] = np.where(differs, labels[1], labels[0])
        coins = np.where(differs, labels, generator.integers(0, 2, n))
        known, tossed, filled = (
            judge_change(each[0], each[1], test) for each in (labels, coins, fill_equal(labels, differs))
        )
        facts = [(each.verdict, each.lower, each.upper, each.p_harm) for each in (known, tossed, filled)]
        changed += facts[0] != facts[1] or facts[0] != facts[2]
    return changed


def labels_made(generator: np.random.Generator, delta: float, runs: int) -> float:
    """Share of the labels of `improve` that are made before the rest can change nothing, with the usual discordance."""
    n = TODAY[DISCORDANCE]
    asked = round(DIFFERING * DISCORDANCE * n)
    shares = np.array([DISCORDANCE + delta, DISCORDANCE - delta]) / 2 * n / asked
    drawn = generator.choice([1, -1, 0], size=(runs, asked), p=[*shares, 1 - shares.sum()])
    won, lost = (np.pad(np.cumsum(drawn == side, axis=1), ((0, 0), (1, 0))) for side in (1, -1))
    left = asked - np.arange(asked + 1)
    passes = change_outcome(won, lost + left, n, margin=0.0, alpha=ALPHA).met
    fails = ~change_outcome(won + left, lost, n, margin=0.0, alpha=ALPHA).met
    return round(float((passes | fails).argmax(axis=1).mean()) / asked, 3)


# Slices and arms


def outcomes(
    generator: np.random.Generator, sizes: NDArray[np.int64], deltas: Sequence[float], reps: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Items gained and lost in each slice, shape (reps, slices)."""
    cells = []
    for size, delta in zip(sizes.tolist(), deltas, strict=True):
        differ = max(DISCORDANCE, abs(delta) + 0.02)
        cells.append(generator.multinomial(size, [(differ + delta) / 2, (differ - delta) / 2, 1 - differ], size=reps))
    drawn = np.stack(cells, axis=1)
    return drawn[..., 0], drawn[..., 1]


CORE = np.round(np.array(SLICE_SHARES) * 1000).astype(np.int64)
"""Items of seven slices of unequal size."""


def small_slice_falls(*, which: int = 6, fall: float = -0.15, whole: float = EFFECT) -> list[float]:
    """True differences of the slices if a small one falls and the whole gains."""
    share = SLICE_SHARES[which]
    return [fall if place == which else (whole - share * fall) / (1 - share) for place in range(len(SLICE_SHARES))]


def slice_pass(
    generator: np.random.Generator, reps: int, deltas: Sequence[float], *, mode: str = "improve", top_up: int = TOP_UP
) -> float:
    """Share promoted with these true differences of the slices; small ones are topped up for their guard alone."""
    gained, lost = outcomes(generator, CORE, deltas, reps)
    sizes = np.maximum(CORE, top_up)
    more_gained, more_lost = outcomes(generator, sizes - CORE, deltas, reps)
    rule = champion_rule(gained.sum(1), lost.sum(1), int(CORE.sum()), mode=mode)
    codes = guarded(rule, gained + more_gained, lost + more_lost, sizes)
    return round(float((codes == PROMOTE).mean()), 4)


def many_slices(generator: np.random.Generator, n_slices: int, reps: int, n: int = 1000) -> float:
    """Share of equal candidates that are blocked, with this many slices of unequal size."""
    weights = 1 / np.arange(1, n_slices + 1)
    sizes = np.maximum(1, np.round(n * weights / weights.sum())).astype(np.int64)
    gained, lost = outcomes(generator, sizes, [0.0] * n_slices, reps)
    rule = change_outcome(gained.sum(1), lost.sum(1), int(sizes.sum()), margin=0.0, alpha=ALPHA)
    return round(float((guarded(rule, gained, lost, sizes) == BLOCK).mean()), 4)


def best_of(generator: np.random.Generator, n_arms: int, reps: int, n: int = 600) -> float:
    """Share of candidates that are blocked although they equal each of the prompting arms."""
    blocked = 0
    for start in range(0, reps, 1000):
        rows = min(1000, reps - start)
        easy = generator.random((rows, n), np.float32) < 0.7
        right = [generator.random((rows, n), np.float32) < np.where(easy, 1 - 0.064, 0.15) for _ in range(n_arms + 1)]
        candidate, *arms = right
        outcomes = [
            change_outcome((candidate & ~arm).sum(1), (arm & ~candidate).sum(1), n, margin=0.0, alpha=ALPHA)
            for arm in arms
        ]
        met, p_harm = (np.stack([getattr(each, part) for each in outcomes], axis=1) for part in ("met", "p_harm"))
        blocked += int((settle(met, p_harm, alpha=ALPHA).max(axis=1) == BLOCK).sum())
    return round(blocked / reps, 4)


# Heavy tails


def tails_pass(generator: np.random.Generator, reps: int, sizes: Sequence[int] = (200, MIN_CONTINUOUS_ITEMS)) -> float:
    """Share of continuous metrics that pass although truly at the limit, of the worst tail and number of items.

    Ceilings on lognormal means, and comparisons in which few answers are catastrophic.
    """
    seconds = traits_of("exact").model_copy(update={"continuous": True})
    costs = seconds.model_copy(update={"higher_is_better": False})
    change, passed = ChangeTest(seconds, 1 - ALPHA, "champion"), []
    for n in sizes:
        for draw in TAILS.values():
            drawn = [draw(generator, n) for _ in range(reps)]
            passed.append(sum(judge_change(*pair, change).verdict == "PROMOTE" for pair in drawn) / reps)
        for sigma in (1.5, 2.0):
            ceiling = ValueTest(costs, 1 - ALPHA, math.exp(sigma**2 / 2))
            values = np.exp(generator.normal(0, sigma, (reps, n)))
            passed.append(sum(judge_value(row, ceiling).verdict == "PROMOTE" for row in values) / reps)
    return round(max(passed), 4)


# Ruined candidates


def collapse_not_blocked(generator: np.random.Generator, n: int = 400, n_customers: int = 100) -> int:
    """Splits of the error probability at which a ruined candidate is not blocked, by change or by value."""
    ruined, right = ((generator.random(n) < share).astype(np.float64) for share in (0.03, 0.89))
    clusters = np.arange(n) % n_customers
    missed_at = 0
    for splits in (1, 3, 12, 20, 240, 1000, 10_000):
        confidence = 1 - ALPHA / splits
        change, value = (
            ChangeTest(traits_of("exact"), confidence, "champion"),
            ValueTest(traits_of("exact"), confidence, 0.5),
        )
        found = judge_change(ruined, right, change, clusters=clusters), judge_value(ruined, value, clusters=clusters)
        missed_at += any(each.verdict != "BLOCK" for each in found)
    return missed_at
