"""Power of a gate before training: the items that each rule needs, and the effects that the present items can show."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from schemas.artifacts import CertifiedRef, GateDecision
from schemas.checks import ForgettingSpec
from schemas.evaluation import AbstainSpec
from schemas.gates import LEAST_ITEMS, GateRule, GatesSpec
from schemas.metrics import RIGHT, MetricTraits, traits_of
from schemas.verdicts import Finding, Passes
from tasks.assess.certify import tickets_for
from tasks.assess.compare import z_value
from tasks.assess.decision import describe_rule
from tasks.assess.interim import BatchedRuns, PairedRule, aim_of, change_chances, run_in_batches
from tasks.assess.looks import last_levels
from tasks.assess.pass_chance import Comparison, passes_of
from tasks.assess.power import (
    ASSUMED_DISCORDANCE,
    gain_items_needed,
    items_needed,
    margin_items_needed,
    share_items_needed,
    smallest_difference,
    smallest_distance,
    smallest_gain,
    smallest_margin,
)
from tasks.assess.suite import METRIC
from tasks.assess.weigh import MIN_CONTINUOUS_ITEMS, Kind
from tasks.tickets.draw import look_ends

SIMULATED_RUNS = 1000
SMALL_SLICE = 100
"""Items of the slice that a plan speaks of, if `gates.slices.top_up` says no number."""


@dataclass(frozen=True)
class Disagreement:
    """How much two models differed per item in an earlier verdict."""

    discordance: float
    """Share of items on which they differ."""
    spread: float
    """Standard deviation of the difference per item."""


@dataclass(frozen=True)
class RulePower:
    """What one rule needs from the held-out set."""

    rule: str
    needed: int | None
    """Items for the wanted power; None if no number is enough."""
    at_hand: int | None
    """Held-out items; None before curation."""
    smallest: float | None
    """Smallest effect that the available items show with the wanted power; None if there is none, or it is unknown."""
    what: str
    """The effect to find, and the assumptions."""
    passes: Passes | None = None
    """Of a comparison: what it does with the available items."""

    @property
    def underpowered(self) -> bool:
        """Whether there are too few items."""
        return self.at_hand is not None and (self.needed is None or self.at_hand < self.needed)


@dataclass(frozen=True)
class InterimPlan:
    """When a run looks at its answers (`gates.interim`), and how many items candidates answer on average."""

    looks: tuple[int, ...]
    """Items answered by then; the last are all."""
    stop_below: float
    chance_at_start: float
    """That a candidate with the planned effect meets the first comparison, without looks."""
    items_if_equal: float
    items_at_effect: float

    def sentence(self) -> str:
        """The same as a sentence."""
        *looks, n_items = self.looks
        if not looks:
            return f"interim: {n_items:,} items are one batch, and no look is taken"
        after = ", ".join(f"{each:,}" for each in looks)
        return (
            f"interim: looks after {after} of {n_items:,} items stop a candidate whose chance to pass is below "
            f"{100 * self.stop_below:g} % (before the first answer: {100 * self.chance_at_start:.0f} %); on average an "
            f"equal candidate answers {self.items_if_equal:,.0f} items, one with the effect {self.items_at_effect:,.0f}"
        )


ASSUMED_COVERAGE = 0.5
"""Share of tickets that a model is taken to be sure of, before a run has measured it."""


@dataclass(frozen=True)
class CalibrationPlan:
    """Calibration tickets that `evaluate.abstain` needs."""

    target: float
    needed: int | None
    """For a certificate with a chance of 80 %; None if the model was nowhere right more often than the target."""
    at_hand: int | None
    """Calibration tickets; None before curation."""
    what: str
    """What is assumed."""

    def sentence(self) -> str:
        """The same as a sentence.

        >>> CalibrationPlan(0.95, 784, 240, "assumed").sentence()
        'route or review: a target of 0.95 takes about 784 calibration tickets (assumed); there are 240, too few'
        """
        start = f"route or review: a target of {self.target:.4g}"
        if self.needed is None:
            return f"{start} will not be certified, whatever the number of tickets ({self.what})"
        have = ""
        if self.at_hand is not None:
            have = f"; there are {self.at_hand:,}{', too few' if self.at_hand < self.needed else ''}"
        return f"{start} takes about {self.needed:,} calibration tickets ({self.what}){have}"


def plan_calibration(
    abstain: AbstainSpec, *, n_tickets: int | None, last: CertifiedRef | None, cluster_by: str | None = None
) -> CalibrationPlan:
    """Return how many calibration tickets a certificate needs, by the exact tails that certify.

    Args:
        n_tickets: Calibration tickets; None before curation.
        last: The candidate's certificate of the last run, whose curve is taken; None for an assumed model.
        cluster_by: `gates.cluster_by`.
    """
    alpha = 1 - abstain.confidence
    if last is not None and last.curve:
        coverages, accuracies = zip(*((point.coverage, point.accuracy) for point in last.curve), strict=True)
        sizes = np.array(coverages) * last.n_calibration
        drawn = (np.array(accuracies) * sizes + 0.5) / (sizes + 1)  # ten of ten are not all
        needed = tickets_for(coverages, drawn, target=abstain.target, alpha=alpha, n_seen=last.n_calibration)
        what = f"if the candidate is as sure and as right as the last one on {last.n_calibration:,}"
    else:
        accuracy = (1 + abstain.target) / 2
        needed = tickets_for(ASSUMED_COVERAGE, accuracy, target=abstain.target, alpha=alpha)
        what = f"assumed: {100 * ASSUMED_COVERAGE:g} % are routed, {100 * accuracy:.4g} % of them rightly"
    if cluster_by is not None:
        what += f"; more where tickets of one {cluster_by} are alike"
    return CalibrationPlan(abstain.target, needed, n_tickets, what)


def plan_interim(gates: GatesSpec, *, n_items: int, batch_size: int) -> InterimPlan | None:
    """Return the looks of a run, and what they save, by simulating its first comparison of right and wrong answers.

    None without `gates.interim`, or without such a comparison; labels come too late for a look.
    """
    rules = (rule for rule in gates.judged_rules if rule.metric != RIGHT)
    changes = [rule.change_threshold for rule in rules if rule.change_threshold is not None]
    spec, effect = gates.interim, gates.power.effect
    if spec is None or not changes:
        return None
    kind: Kind = "anchor" if changes[0].mode == "no_worse" else changes[0].mode
    discordance = gates.power.discordance or ASSUMED_DISCORDANCE  # that of the looks, whatever was seen before
    alpha = last_levels(gates).met
    looks = look_ends(n_items, batches=spec.batches, batch_size=batch_size)
    generator = np.random.default_rng(0)

    def simulate(gain: float) -> BatchedRuns:
        outcome = generator.random((SIMULATED_RUNS, n_items))
        differing = max(discordance, abs(gain))
        won, lost = outcome < (differing + gain) / 2, outcome > 1 - (differing - gain) / 2
        rule = PairedRule(lost, kind, changes[0].margin, changes[0].least_gain)
        return run_in_batches(
            won, [rule], looks=looks, effect=effect, discordance=discordance, alpha=alpha,
            stop_below=spec.stop_below, power=gates.power.power,
        )  # fmt: skip

    aim = aim_of(kind, margin=changes[0].margin, min_gain=changes[0].least_gain, alpha=alpha, effect=effect)
    return InterimPlan(
        looks=looks,
        stop_below=spec.stop_below,
        chance_at_start=float(change_chances(0, 0, 0, n_items, aim=aim, discordance=discordance)[1]),
        items_if_equal=float(simulate(0.0).n_items.mean()),
        items_at_effect=float(simulate(effect).n_items.mean()),
    )


def disagreements(decision: GateDecision) -> dict[str, Disagreement]:
    """Return metric -> how the candidate and what it was to replace differed in that verdict, over all items."""
    against = "champion" if decision.champion_version else "best_baseline"
    found: dict[str, Disagreement] = {}
    for finding in decision.findings:
        compared = against in finding.rule or "endpoint (" in finding.rule or finding.part == "forgetting"
        if finding.slice is None and finding.won is not None and compared:
            found.setdefault(finding.metric, _disagreement(finding, decision))
    return found


def _disagreement(finding: Finding, decision: GateDecision) -> Disagreement:
    discordance = ((finding.won or 0) + (finding.lost or 0)) / max(1, finding.n_items)
    spread = discordance**0.5
    if finding.lower is not None and finding.upper is not None and decision.use is not None:
        z = z_value(decision.use.confidence)
        spread = (finding.upper - finding.lower) / 2 / z * finding.n_items**0.5
    return Disagreement(discordance, spread)


def plan_gate(
    gates: GatesSpec,
    *,
    traits: Mapping[str, MetricTraits],
    n_items: int | None,
    seen: Mapping[str, Disagreement],
    n_suite: int | None = None,
) -> tuple[RulePower, ...]:
    """One row per rule over all items, and one for the slices. Rules on a single slice are left out: its size is not
    known yet.

    Args:
        seen: Metric -> how much candidate and champion differed in the last verdict.
        n_suite: Items in the suite of `gates.forgetting`.
    """
    rows = [
        _change_power(rule, gates, traits_of(rule.metric, traits), n_items, seen.get(rule.metric))
        if rule.change_threshold is not None
        else _value_power(rule, gates, traits_of(rule.metric, traits), n_items)
        for rule in gates.judged_rules
        if rule.slice is None
    ]
    if gates.added_rule is not None:
        needed = rows[-1].needed
        rows[-1] = replace(
            rows[-1],
            rule=f"{rows[-1].rule} (gates.compare)",
            needed=None if needed is None else max(needed, LEAST_ITEMS),
        )
    if gates.slices is not None:
        rows.append(_slice_power(gates, traits_of(gates.slices.metric, traits), seen.get(gates.slices.metric)))
    if gates.forgetting is not None:
        rows.append(_forgetting_power(gates, gates.forgetting, n_suite, seen.get(METRIC)))
    if gates.cluster_by is not None:  # their similarity is known only from answers
        rows = [replace(row, what=f"{row.what}; more if items share a {gates.cluster_by}") for row in rows]
    return tuple(rows)


def _change_power(
    rule: GateRule, gates: GatesSpec, traits: MetricTraits, n_items: int | None, seen: Disagreement | None
) -> RulePower:
    change, wanted, level = rule.change_threshold, gates.power, _level(gates)
    if change is None:
        raise ValueError("the rule has no change_threshold")
    paired = not traits.continuous
    if paired:
        variance, source = _discordance(gates, seen)
    else:
        spread = wanted.spread if seen is None else seen.spread
        variance, source = spread**2, f"spread {spread:.3g} {'assumed' if seen is None else 'as in the last verdict'}"
    smallest: float | None
    if change.mode == "no_worse":  # a copy must pass, so that there is no gain to find
        what = f"a truly equal candidate within {change.margin:g}"
        needed = margin_items_needed(change.margin, discordance=variance, **level)
        smallest = None if n_items is None else smallest_margin(n_items, discordance=variance, **level)
    else:
        what = f"a true gain of {wanted.effect:g}"
        needed = gain_items_needed(
            wanted.effect, variance=variance, paired=paired, margin=change.margin, min_gain=change.least_gain, **level
        )
        smallest = None if n_items is None else smallest_gain(
            n_items, variance=variance, paired=paired, margin=change.margin, min_gain=change.least_gain, **level
        )  # fmt: skip
    if traits.continuous:
        needed = None if needed is None else max(needed, MIN_CONTINUOUS_ITEMS)
        smallest = smallest if n_items is not None and n_items >= MIN_CONTINUOUS_ITEMS else None
    passes = None
    if n_items and (not traits.continuous or n_items >= MIN_CONTINUOUS_ITEMS):
        compared = Comparison(change, n_items, variance, paired and gates.cluster_by is None, 1 - level["confidence"])
        passes = passes_of(compared, in_points=traits.limits == (0.0, 1.0))
    return RulePower(describe_rule(rule), _at_least_min(needed, gates), n_items, smallest, f"{what}; {source}", passes)


def _value_power(rule: GateRule, gates: GatesSpec, traits: MetricTraits, n_items: int | None) -> RulePower:
    limit, wanted = rule.value_threshold or 0.0, gates.power
    confidence, power = _level(gates).values()
    if traits.continuous:
        needed = items_needed(
            wanted.effect, sd_null=wanted.spread, sd_true=wanted.spread, confidence=confidence, power=power
        )
        needed = None if needed is None else max(needed, MIN_CONTINUOUS_ITEMS)
        smallest = _continuous_smallest(n_items, wanted.spread, gates)
        what = f"a true value {wanted.effect:g} better than the limit; spread {wanted.spread:.3g} assumed"
    else:
        share = limit if traits.higher_is_better else 1 - limit
        effect = min(wanted.effect, 1 - share)
        needed = share_items_needed(share, share + effect, confidence=confidence, power=power)
        smallest = None if n_items is None else smallest_distance(n_items, share, confidence=confidence, power=power)
        what = f"a true value {effect:.3g} better than the limit"
    text = describe_rule(rule, higher_is_better=traits.higher_is_better)
    return RulePower(text, _at_least_min(needed, gates), n_items, smallest, what)


def _forgetting_power(
    gates: GatesSpec, spec: ForgettingSpec, n_suite: int | None, seen: Disagreement | None
) -> RulePower:
    """Non-inferiority to the base on the suite's items."""
    level = _level(gates)
    discordance, source = _discordance(gates, seen)
    n = None if n_suite is None else min(n_suite, spec.max_items or n_suite)
    return RulePower(
        rule=f"{METRIC} is at most {spec.margin:g} worse than base at the confidence",
        needed=margin_items_needed(spec.margin, discordance=discordance, **level),
        at_hand=n,
        smallest=None if n is None else smallest_margin(n, discordance=discordance, **level),
        what=f"a candidate that lost nothing, within {spec.margin:g}; {source}",
    )


def _slice_power(gates: GatesSpec, traits: MetricTraits, seen: Disagreement | None) -> RulePower:
    """What a small slice can show, before Holm's correction."""
    guard = gates.slices
    if guard is None:
        raise ValueError("no slices are guarded")
    n = guard.top_up or SMALL_SLICE
    if traits.continuous:
        smallest, source = _continuous_smallest(n, gates.power.spread, gates), f"spread {gates.power.spread:.3g}"
    else:
        discordance, source = _discordance(gates, seen)
        smallest = smallest_difference(n, discordance=discordance, **_level(gates))
    what = f"a loss in a slice of {n} items, judged alone; {source}"
    return RulePower(f"{guard.metric} in slices of {', '.join(guard.by)}", None, None, smallest, what)


def _level(gates: GatesSpec) -> dict[str, float]:
    """The confidence of a rule at the last look, and the wanted power."""
    return {"confidence": 1 - last_levels(gates).met, "power": gates.power.power}


def _discordance(gates: GatesSpec, seen: Disagreement | None) -> tuple[float, str]:
    """The share of items that only one of the two models gets right, and a phrase that says so and where it is from."""
    value, origin = ASSUMED_DISCORDANCE, "assumed"
    if gates.power.discordance is not None:
        value, origin = gates.power.discordance, "declared"
    elif seen is not None and seen.discordance > 0:
        value, origin = seen.discordance, "as in the last verdict"
    return value, f"{100 * value:.3g} % of the items right in one model alone (discordance, {origin})"


def _continuous_smallest(n_items: int | None, spread: float, gates: GatesSpec) -> float | None:
    if n_items is None or n_items < MIN_CONTINUOUS_ITEMS:
        return None
    level = _level(gates)
    return float((z_value(level["confidence"]) + z_value(level["power"])) * spread / n_items**0.5)


def _at_least_min(needed: int | None, gates: GatesSpec) -> int | None:
    return None if needed is None else max(needed, gates.min_items)
