"""Rules that cannot decide: limits and gains that no answer reaches, limits that every answer meets, too few items, the
same test twice; and gates that let a worse model pass.

Reads declarations only, before anything is trained. Whether the items that are there suffice for a given power is in
`plan_gate.py`.
"""

import math
from collections.abc import Iterator, Mapping

from schemas.comparison import compares_with_endpoint, comparison_rules
from schemas.gates import LEAST_ITEMS, MAX_MARGIN, GateRule, GatesSpec
from schemas.metrics import MetricTraits
from tasks.assess.contract import change_outcome, share_outcome, sign_p
from tasks.assess.decision import describe_rule
from tasks.assess.looks import last_levels
from tasks.assess.pace import least_timed
from tasks.assess.weigh import MIN_CONTINUOUS_ITEMS

ADDED = "gates.compare"
USUAL_CONFIDENCE = 0.9
WIDENS = "it only makes harm harder to show, since all tests of a gate share its error probability (Holm)"


def gate_warnings(gates: GatesSpec, *, traits: Mapping[str, MetricTraits], n_items: int) -> list[str]:
    """Return a sentence for each rule that cannot decide, and for what the gate leaves uncompared.

    Args:
        gates: As judged, with the comparison that is added.
        traits: Metric -> traits of all that are scored; a rule on another one is an error, and no warning.
        n_items: Held-out items, or the most that there can be.
    """
    return [*_about_the_gate(gates, traits, n_items), *_about_rules(gates, traits, n_items)]


def _about_the_gate(gates: GatesSpec, traits: Mapping[str, MetricTraits], n_items: int) -> Iterator[str]:
    if gates.compare.off is not None:
        yield f"gates.compare is off, so no verdict is better than UNCOMPARED: {gates.compare.off}"
    if gates.confidence < USUAL_CONFIDENCE:
        share = f"{100 * (1 - gates.confidence):.3g} %"
        yield f"gates.confidence is {gates.confidence:g}: up to {share} of the candidates at a limit are promoted"
    if gates.contamination is None:
        yield "gates.contamination is null: a model that has learned the held-out answers looks better than it is"
    compared = comparison_rules(gates, traits)
    changes = [rule.change_threshold for rule in compared if rule.change_threshold]
    if compared and all(rule.metric == "heldout_loss" for rule in compared):
        yield (
            "gates.compare: heldout_loss alone compares with the champion; it is that of the reference answers, and "
            "judges none that a model writes, as `metric: chrf` does"
        )
    if changes and all(change.mode == "no_worse" for change in changes):
        yield (
            "gates.rules compare with the champion by mode no_worse alone, which also promotes a model that is shown "
            "to be worse, within its margin; mode refresh needs a gain"
        )
    if gates.has_incumbent and not compares_with_endpoint(gates, traits):
        yield (
            "no rule over all items compares quality with the endpoint by mode improve, or by a margin of at most "
            f"{MAX_MARGIN:g}: until there is a champion, candidates are compared with a baseline, too"
        )
    tolerated = math.inf if gates.anchor is None else gates.anchor.margin or 0.0
    if changes and tolerated > MAX_MARGIN and all(change.mode != "improve" for change in changes):
        place = "gates.anchor is null" if gates.anchor is None else f"gates.anchor.margin is {tolerated:g}"
        yield f"{place}: each champion may lose a margin against the one before, and their sum is a worse model"
    if gates.latency is not None and gates.latency.p95_ratio_max is not None:
        n_timed, needed = gates.latency.prompts_of(n_items, decides=True), least_timed(1 - gates.confidence)
        if n_timed < needed:
            yield (
                f"gates.latency.p95_ratio_max is HOLD with {n_timed} items wherever it decides, however fast or slow "
                f"answers are: to be kept or exceeded it takes {needed}"
            )
    if gates.min_items > n_items:
        yield f"gates.min_items is {gates.min_items}, and there are at most {n_items} items: no rule can be met"


def _about_rules(gates: GatesSpec, traits: Mapping[str, MetricTraits], n_items: int) -> Iterator[str]:
    first: dict[GateRule, str] = {}
    for index, rule in enumerate(gates.judged_rules):
        place = f"gates.rules[{index}]" if index < len(gates.rules) else ADDED
        if rule.metric not in traits:
            continue
        known = traits[rule.metric]
        text = f"{place} ({describe_rule(rule, higher_is_better=known.higher_is_better)})"
        if _always_blocks(rule, known):
            yield f"{text} is always BLOCK, since {_range(known)} and its hard_limit is {rule.hard_limit:g}"
            continue
        same = first.setdefault(_test_of(rule), place)
        if same != place:
            yield f"{place} is the same test as {same}: {WIDENS}"
            continue
        fault = _fault_of_range(rule, known)
        if fault is None and place == ADDED and n_items < LEAST_ITEMS:
            fault = f"cannot be met with {n_items} items: it needs {LEAST_ITEMS}, whatever gates.min_items is"
        if fault is None and rule.slice is None and gates.min_items <= n_items:
            fault = _fault_of_size(rule, gates, known, n_items)
        if fault is not None:
            yield f"{text} {fault}"


def _test_of(rule: GateRule) -> GateRule:
    """The rule with the values that it has by default written out, and without `hard_limit`, which tests nothing."""
    change = rule.change_threshold
    written = change and change.model_copy(update={"min_gain": change.least_gain})
    return rule.model_copy(update={"hard_limit": None, "change_threshold": written})


def _always_blocks(rule: GateRule, traits: MetricTraits) -> bool:
    """Whether even the best possible mean is beyond the hard limit."""
    lowest, highest = traits.limits
    best, sign = (highest, 1.0) if traits.higher_is_better else (lowest, -1.0)
    return rule.hard_limit is not None and best is not None and sign * rule.hard_limit > sign * best


def _fault_of_range(rule: GateRule, traits: MetricTraits) -> str | None:
    """Why the metric's range decides the rule, whatever is answered; None if it does not."""
    lowest, highest = traits.limits
    change, limit = rule.change_threshold, rule.value_threshold
    if change is not None:
        if lowest is None or highest is None:
            return None
        if (change.min_gain or 0.0) > highest - lowest:
            return f"cannot be met: {_range(traits)}, and its min_gain is {change.min_gain:g}"
        if change.mode == "improve" or change.margin < highest - lowest:
            return None
        return f"tolerates any loss, since {_range(traits)}: its margin decides nothing"
    best, worst = (highest, lowest) if traits.higher_is_better else (lowest, highest)
    sign = 1.0 if traits.higher_is_better else -1.0
    if limit is None:
        return None
    if best is not None and sign * limit > sign * best:
        return f"cannot be met: {_range(traits)}"
    if best is not None and limit == best and not traits.continuous:
        return f"cannot be met: {_range(traits)}, and a confidence bound never reaches {best:g}"
    if worst is not None and sign * limit <= sign * worst and rule.hard_limit is None:
        return f"is met by every answer, since {_range(traits)}: {WIDENS}"
    return None


def _fault_of_size(rule: GateRule, gates: GatesSpec, traits: MetricTraits, n_items: int) -> str | None:
    """Why this many items cannot decide the rule; None if they can."""
    levels, change = last_levels(gates), rule.change_threshold
    alpha, alpha_of_harm = levels.met, levels.harm / _n_tests(gates)
    level = f"at {100 * (1 - alpha):.6g} % confidence"
    if traits.continuous:
        if n_items < MIN_CONTINUOUS_ITEMS:
            return f"cannot be met with {n_items} items: bounding {rule.metric} needs {MIN_CONTINUOUS_ITEMS}"
        least = 0.0
    elif change is not None:
        margin = 0.0 if change.mode == "improve" else change.margin
        if not change_outcome(n_items, 0, n_items, margin=margin, alpha=alpha).met:
            return f"cannot be met {level} with {n_items} items, even if the candidate is better on all of them"
        least = float(sign_p(0, n_items))
    else:
        limit = rule.value_threshold or 0.0
        aim = limit if traits.higher_is_better else 1 - limit
        if not share_outcome(n_items, n_items, limit=aim, alpha=alpha).met:
            needed = math.ceil(math.log(alpha) / math.log(aim))
            return f"cannot be met {level} with {n_items} items, even if all answers are right; it takes {needed:,}"
        least = (1 - aim) ** n_items
    if least > alpha_of_harm:
        return (
            f"cannot be violated with {n_items} items, however bad the answers: harm needs "
            f"{100 * (1 - alpha_of_harm):.6g} % confidence, as it may be chance in {_n_tests(gates)} tests (Holm)"
        )
    return None


def _n_tests(gates: GatesSpec) -> int:
    """The least number of tests that may block; slices are known only with the items."""
    changes = (rule.change_threshold for rule in gates.judged_rules)
    anchored = [each for each in changes if each and each.mode != "improve" and each.against == "champion"]
    more = sum(each is not None for each in (gates.slices, gates.judge, gates.forgetting))
    return len(gates.judged_rules) + (len(anchored) if gates.needs_anchor else 0) + more


def _range(traits: MetricTraits) -> str:
    lowest, highest = traits.limits
    if lowest is None or highest is None:
        return (
            f"{traits.name} is at {'least' if highest is None else 'most'} {lowest if highest is None else highest:g}"
        )
    return f"{traits.name} is between {lowest:g} and {highest:g}"
