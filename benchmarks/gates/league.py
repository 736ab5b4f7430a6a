"""The league: what is played between the rules of `rules.py`, and its tables.

Right and wrong answers at each size, one ruined slice, zero discordance, heavy tails, customers with many tickets,
rules that look while answers come in, and real answers. Knows nothing of how a rule decides.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gates import chart
from benchmarks.gates.draws import TAILS, customers, differences
from benchmarks.gates.promises import (
    CORE,
    DIFFERING,
    EFFECT,
    TOP_UP,
    outcomes,
    slice_pass,
    small_slice_falls,
    with_stops,
    without_stops,
)  # fmt: skip
from benchmarks.gates.real_pairs import Pair, real_pairs, recorded_pairs
from benchmarks.gates.rules import (
    OURS,
    PEERS,
    RULES,
    STREAMERS,
    Judged,
    Requests,
    Table,
    Tables,
    Trial,
    differing_range,
    items_for_power,
)  # fmt: skip
from benchmarks.gates.simulated import DISCORDANCE, SCENARIOS, SLICES, champion_rule, draw, guarded
from benchmarks.measure import table
from tasks.assess.contract import BLOCK, HOLD, PROMOTE

DISCORDANCES = (0.05, 0.1, 0.2)
VERDICTS = {PROMOTE: "promoted", HOLD: "neither", BLOCK: "blocked", 3: "no verdict"}


@dataclass(frozen=True)
class Size:
    """How much is played."""

    sizes: tuple[int, ...]
    discordances: tuple[float, ...]
    resamples: int
    """Of the packages that resample; their own default is 10,000."""
    rows: int
    """Candidates judged by their whole vectors."""
    stream_rows: int
    real_items: int


QUICK = Size((20, 200, 1000), (0.1,), 1000, 60, 25, 500)
FULL = Size((20, 50, 100, 200, 500, 1000, 2000), DISCORDANCES, 2000, 200, 100, 1000)


# The league as one request, and its tables


@dataclass(frozen=True)
class Section:
    """A table of the page with the sentences before it."""

    text: str
    names: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __str__(self) -> str:
        return f"{self.text}\n\n{table(self.names, self.rows)}"


class League:
    """Everything that is played; `play` has the peers answer, the rest reads the answers."""

    def __init__(self, *, quick: bool, seed: int = 20260601) -> None:
        self.size, self._seed, self._requests = QUICK if quick else FULL, seed, Requests()
        size = self.size
        self.pairs: list[Pair] = [*real_pairs(quick=quick), *recorded_pairs()]
        ranges = {n: differing_range(n, size.discordances) for n in size.sizes}
        spread = [pair.discordance for pair in self.pairs]
        if spread:
            ranges[size.real_items] = differing_range(size.real_items, (*size.discordances, *spread))
        self._tables = Tables(self._requests, ranges, resamples=size.resamples)
        self._judged = {
            trial.name: Judged(self._requests, trial, _judges(trial), resamples=size.resamples)
            for trial in draw_trials(np.random.default_rng([seed, 1]), size.rows)
        }
        self._streams = {
            (rule.name, delta): self._requests.add(rule, "stream", differences=self._requests.share(name, array))
            for delta, (name, array) in self._draw_streams().items()
            for rule in STREAMERS
        }
        self.tables: Mapping[tuple[str, int], Table] = {}
        self._answers: list[dict[str, Any] | None] = []

    def play(self, home: Path, scratch: Path) -> None:
        """Ask the peers."""
        self._answers = self._requests.answers(home, scratch)
        self.tables = self._tables.read(self._answers)

    def _draw_streams(self) -> dict[float, tuple[str, NDArray[np.int8]]]:
        generator = np.random.default_rng([self._seed, 2])
        return {
            delta: (
                f"stream {delta}",
                differences(generator, self.size.stream_rows, 1000, discordance=0.1, delta=delta),
            )
            for delta in (EFFECT, 0.0, -EFFECT)
        }

    # Tables

    def sections(self) -> list[Section]:
        """All tables that could be made; a peer that is not there has no row."""
        found = [self.overall(), *(self.at_discordance(d) for d in self.size.discordances if d != 0.1), self.slices(),
                 self.edges(), self.vectors(), self.streams()]  # fmt: skip
        return [*found, *([self.real()] if self.pairs else [])]

    def names(self) -> list[str]:
        """Rules that have all tables, in the order of the league."""
        return [rule.name for rule in RULES if all((rule.name, n) in self.tables for n in self.size.sizes)]

    def powers(self, name: str, delta: float, discordance: float = 0.1) -> dict[int, float]:
        """Items -> share promoted."""
        return {n: self.tables[name, n].shares(discordance, delta)[0] for n in self.size.sizes}

    def overall(self) -> Section:
        """False promotions, power and items at a discordance of 10 %."""
        return self.at_discordance(0.1)

    def at_discordance(self, discordance: float) -> Section:
        """The same at any discordance."""
        rows: list[list[object]] = []
        claims = {rule.name: rule.claims for rule in RULES}
        for name in self.names():
            cells = []
            for n in self.size.sizes:
                shares = [self.tables[name, n].shares(discordance, delta)[0] for delta in (-EFFECT, 0.0, EFFECT)]
                cells.append(" / ".join(f"{100 * share:.1f}" for share in shares))
            needed = items_for_power(self.powers(name, EFFECT, discordance))
            largest = max(self.size.sizes)
            rows.append([name, claims[name], *cells, needed or f"over {largest:,}"])
        return Section(
            f"Promoted in % if truly 3 points worse / equal / 3 points better; two equal models disagree on "
            f"{discordance:.0%} of the items. Exact. Last column: items for 80 % power at +3, interpolated.",
            ["rule", "a promotion says", *(f"n={n:,}" for n in self.size.sizes), "items"],
            rows,
        )

    def slices(self) -> Section:
        """A slice falls while the whole gains 3 points: one of six equal ones, or one of 2 %; and none falls."""
        generator = np.random.default_rng([self._seed, 3])
        shares: dict[str, list[float]] = {}
        for name, (gained, lost, sizes) in slice_worlds(generator, 20_000).items():
            total = int(sizes.sum())
            for rule in OURS:
                outcome = champion_rule(gained.sum(1), lost.sum(1), total, mode=rule.name.split()[-1])
                promoted = guarded(outcome, gained, lost, sizes) == PROMOTE
                shares.setdefault(rule.name, []).append(float(promoted.mean()))
            for rule in PEERS:
                if known := self.tables.get((rule.name, 1000)):
                    codes = known.codes(gained.sum(1), lost.sum(1))
                    shares.setdefault(rule.name, []).append(float((codes == PROMOTE).mean()))
            answered = self._judged[name].read(self._answers).get("truescore mcnemar")
            if answered is not None:
                share = float((answered == PROMOTE).mean())
                shares.setdefault("truescore mcnemar and compare_slices", []).append(share)
        for rule in OURS:
            mode, deltas = rule.name.split()[-1], (small_slice_falls(), [EFFECT] * len(CORE))
            fallen, healthy = (slice_pass(generator, 20_000, each, mode=mode) for each in deltas)
            shares[f"{rule.name}, top_up {TOP_UP}"] = [math.nan, fallen, healthy]
        rows = sorted(shares.items(), key=lambda item: item[1][1])
        return Section(
            "Promoted in %, 1,000 items, the whole 3 points better: one of six slices falls by 15 points; a slice of "
            "20 items falls by 15 points; no slice falls. `top_up` draws 220 more items for small slices.",
            ["rule", "one of six falls", "one of 2 % falls", "none falls"],
            [[name, *("-" if math.isnan(share) else f"{100 * share:.1f}" for share in all_)] for name, all_ in rows],
        )

    def edges(self) -> Section:
        """No difference on any item, and a collapse, at each size."""
        rows: list[list[object]] = []
        for name in self.names():
            cells = []
            for n in (20, 200):
                known = self.tables.get((name, n))
                for gained, lost in ((0, 0), (0, round(0.15 * n))):
                    cells.append("-" if known is None else VERDICTS[int(known.codes(np.array(gained), np.array(lost)))])
            rows.append([name, *cells])
        return Section(
            "The verdict if the two models are right on the same items, and if the candidate loses 15 % of the items "
            "and gains none.",
            ["rule", "equal, n=20", "loses 15 %, n=20", "equal, n=200", "loses 15 %, n=200"], rows,
        )  # fmt: skip

    def vectors(self) -> Section:
        """Scores with heavy tails, and customers who write many tickets."""
        shown = [name for name, judged in self._judged.items() if judged.trial.slices is None]
        found = {name: self._judged[name].read(self._answers) for name in shown}
        rows = [
            [rule.name, *(_shares(found[name].get(rule.name)) for name in shown)]
            for rule in RULES
            if any(rule.name in codes for codes in found.values())
        ]
        return Section(
            f"Promoted / blocked in % ({self.size.rows} candidates, truly equal if nothing else is said; nominal "
            "5 / 5): scores with heavy tails on 200 items, and right answers of 40 customers with 20 tickets each, "
            "correlated within a customer (0.3). One sample of 200 in eight has no time-out at all.",
            ["rule", *shown], rows,
        )  # fmt: skip

    def streams(self) -> Section:
        """Rules that may stop early: promotions, items and labels."""
        rows: list[list[object]] = []
        deltas = (EFFECT, 0.0, -EFFECT)
        for name, law in (("tunegate improve, all items", without_stops), ("tunegate improve, interim", with_stops)):
            laws = [law(1000, DISCORDANCE, delta) for delta in deltas]
            promoted = " / ".join(f"{100 * each.promoted:.0f}" for each in laws)
            items = [each.items for each in laws]
            cells = (f"{each:,.0f} ({DIFFERING * DISCORDANCE * each:,.0f})" for each in items)
            rows.append([name, "better", promoted, *cells])
        for rule in STREAMERS:
            answers = [self._answers[self._streams[rule.name, delta]] for delta in deltas]
            if all(answers):
                codes = [np.array(answer["verdicts"]) for answer in answers if answer]
                asked = [float(np.mean(answer["items"])) for answer in answers if answer]
                promoted = " / ".join(f"{100 * (each == PROMOTE).mean():.0f}" for each in codes)
                rows.append([rule.name, rule.claims, promoted, *(f"{each:,.0f} ({each:,.0f})" for each in asked)])
        return Section(
            f"Rules that look while the answers to 1,000 items come in (peers: {self.size.stream_rows} candidates; "
            "tunegate exact; two equal models disagree on 10 %): promoted in % if 3 points better / equal / 3 points "
            "worse, items answered, and in brackets labels: tunegate's are of answers that differ "
            f"({DIFFERING:g} times the disagreement), the others' of every item.",
            ["rule", "a promotion says", "promoted", "items at +3", "at 0", "at -3"], rows,
        )  # fmt: skip

    def real(self) -> Section:
        """Held-out samples of real answers."""
        n, generator = self.size.real_items, np.random.default_rng([self._seed, 4])
        names = [name for name in self.names() if (name, n) in self.tables]
        rows: list[list[object]] = []
        for pair in self.pairs:
            gained, lost = pair.samples(generator, min(n, pair.n), 4000)
            shares = [float((self.tables[name, n].codes(gained, lost) == PROMOTE).mean()) for name in names]
            rows.append(
                [f"{pair.data}: {pair.candidate}", f"{100 * pair.delta:+.1f}", f"{100 * pair.discordance:.1f}",
                 f"{100 * pair.differing_share:.1f}", *(f"{100 * share:.0f}" for share in shares)]
            )  # fmt: skip
        return Section(
            f"Real answers: promoted in % of held-out samples of {n:,} questions. `delta` is the true difference in "
            "points, `d` the share of questions that exactly one of the two models answers right, `q` the share that "
            "they answer differently.",
            ["candidate", "delta", "d %", "q %", *names], rows,
        )  # fmt: skip

    def chart(self) -> str:
        """Shares promoted over the number of items, as SVG: truly equal candidates, and 3 points better ones."""
        panels = {
            f"promoted although {what}" if delta <= 0 else f"promoted if {what}": {
                name: [self.powers(name, delta)[n] for n in self.size.sizes] for name in self.names()
            }
            for what, delta in (("equal", 0.0), ("3 points better", EFFECT))
        }
        return chart.panels(panels, list(self.size.sizes))

    def figures(self) -> dict[str, object]:
        """Rule -> its figures at 1,000 items and a discordance of 10 %."""
        found: dict[str, object] = {}
        for name in self.names():
            known = self.tables[name, 1000]
            promoted, blocked = zip(*(known.shares(0.1, delta) for delta in (-EFFECT, 0.0, EFFECT)), strict=True)
            found[name] = {
                "minus3": round(promoted[0], 4), "equal": round(promoted[1], 4), "plus3": round(promoted[2], 4),
                "equal_blocked": round(blocked[1], 4), "items_80": items_for_power(self.powers(name, EFFECT)),
            }  # fmt: skip
        return found


def draw_trials(generator: np.random.Generator, rows: int) -> list[Trial]:
    """What is judged as whole vectors: heavy tails, customers with many tickets, and slices; `rows` pairs of each."""
    tails = [
        Trial(name, *_stacked([draw_pair(generator, 200) for _ in range(rows)]), continuous=True)
        for name, draw_pair in TAILS.items()
    ]
    owners = np.repeat(np.arange(40), 20)
    clustered = [
        Trial(
            f"customers, {name}",
            *_stacked(
                [customers(generator, 40, 20, discordance=0.1, correlation=0.3, delta=delta) for _ in range(rows)]
            ),
            groups=owners,
        )
        for name, delta in (("equal", 0.0), ("5 points better", 0.05))
    ]
    slices = [scored_slices(name, *world) for name, world in slice_worlds(generator, rows).items()]
    return [*tails, *clustered, *slices]


def slice_worlds(
    generator: np.random.Generator, rows: int
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """World -> items gained and lost in each slice, shape (rows, slices), and the sizes of the slices."""
    six = draw(generator, rows, 1000, SCENARIOS["+3, one slice -15"])
    return {
        "one of six falls": (six.gained, six.lost, np.full(SLICES, six.n)),
        "one of 2 % falls": (*outcomes(generator, CORE, small_slice_falls(), rows), CORE),
        "none falls": (*outcomes(generator, CORE, [EFFECT] * len(CORE), rows), CORE),
    }


def scored_slices(name: str, gained: NDArray[np.int64], lost: NDArray[np.int64], sizes: NDArray[np.int64]) -> Trial:
    """The same as right and wrong answers; where the models agree, both are right."""
    candidate, champion = (np.ones((len(gained), int(sizes.sum()))) for _ in range(2))
    first = 0
    for column, size in enumerate(sizes.tolist()):
        place, won, worse = np.arange(size), gained[:, column, None], lost[:, column, None]
        champion[:, first : first + size] = place >= won
        candidate[:, first : first + size] = (place < won) | (place >= won + worse)
        first += size
    return Trial(name, candidate, champion, slices=np.repeat(np.arange(len(sizes)), sizes))


def _stacked(
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.stack([candidate for candidate, _ in pairs]), np.stack([champion for _, champion in pairs])


def _judges(trial: Trial) -> list[Any]:
    if trial.slices is not None:
        return [rule for rule in PEERS if rule.engine == "truescore"]
    if trial.continuous:  # a margin of 0.02 means nothing in seconds
        return [rule for rule in PEERS if rule.engine != "statgate" or not rule.settings["margin"]]
    return list(PEERS)


def _shares(codes: NDArray[np.int8] | None) -> str:
    if codes is None:
        return "-"
    return " / ".join(f"{100 * float((codes == code).mean()):.1f}" for code in (PROMOTE, BLOCK))
