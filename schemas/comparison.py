"""The comparison with the champion that a gate gets unless it declares one that a worse model cannot meet.

`schemas/gates.py` has the rule, `tasks/assess/gate.py` judges it.
"""

from collections.abc import Mapping
from typing import Literal

from schemas.evaluation import EvaluateSpec
from schemas.gates import MAX_MARGIN, GateRule, GatesSpec
from schemas.metrics import MetricTraits, traits_by_name, traits_of


def with_comparison(gates: GatesSpec, evaluate: EvaluateSpec) -> GatesSpec:
    """Return the gates with the metric of `compare` filled in, unless a rule makes the comparison already."""
    compare = gates.compare
    if compare.off is not None or compare.metric is not None or compares_with_champion(gates, evaluate):
        return gates
    filled = compare.model_copy(update={"metric": quality_metric(gates, evaluate)})
    return gates.model_copy(update={"compare": filled})


def compares_with_champion(gates: GatesSpec, evaluate: EvaluateSpec) -> bool:
    """Return whether a declared rule over all items compares quality with the champion and tolerates a small loss only.

    A large margin, or a metric such as finished, would let a worse model pass.
    """
    known = traits_by_name(evaluate.traits())
    return any(compares_quality(rule, traits_of(rule.metric, known)) for rule in gates.rules)


def compares_quality(
    rule: GateRule, traits: MetricTraits, *, against: Literal["champion", "endpoint"] = "champion"
) -> bool:
    """Return whether the rule is such a comparison, with the champion or with the incumbent endpoint."""
    change = rule.change_threshold
    if change is None or rule.slice is not None or change.against != against or not traits.quality:
        return False
    return change.mode == "improve" or (change.margin <= MAX_MARGIN and _has_scale(traits))


def compares_with_endpoint(gates: GatesSpec, known: Mapping[str, MetricTraits]) -> bool:
    """Return whether a declared rule makes such a comparison with the incumbent: before the first champion it is what
    serves."""
    return any(compares_quality(rule, traits_of(rule.metric, known), against="endpoint") for rule in gates.rules)


def comparison_rules(gates: GatesSpec, known: Mapping[str, MetricTraits]) -> tuple[GateRule, ...]:
    """Return the rules that compare quality with the champion, and that of `compare`, whatever its metric's range.

    Args:
        gates: As judged, with the comparison that is added.
        known: Metric -> traits.
    """
    return tuple(
        rule
        for rule in gates.judged_rules
        for traits in (traits_of(rule.metric, known),)
        if compares_quality(rule, traits) or (traits.quality and rule == gates.added_rule)
    )


def declared_comparison(gates: GatesSpec, evaluate: EvaluateSpec) -> tuple[str, ...]:
    """Return the metrics of `evaluate.metrics` that alone compare with the champion; none if a built-in one does too.

    Args:
        gates: As judged, with the comparison that is added.
    """
    compared = [rule.metric for rule in comparison_rules(gates, traits_by_name(evaluate.traits()))]
    return tuple(dict.fromkeys(compared)) if set(compared) <= set(evaluate.declared_names()) else ()


def quality_metric(gates: GatesSpec, evaluate: EvaluateSpec) -> str:
    """Return the first metric of the rules, else of `evaluate.metrics`, that measures quality; else the held-out loss.

    A metric of unknown range is left out: no margin is known to be small for it.
    """
    known = traits_by_name(evaluate.traits())
    names = (*(rule.metric for rule in gates.rules), *evaluate.declared_names())
    fit = (name for name in names if _fits(traits_of(name, known), evaluate))
    return next(fit, "chrf" if "endpoint" in evaluate.arms else "heldout_loss")


def _fits(traits: MetricTraits, evaluate: EvaluateSpec) -> bool:
    if traits.name == "heldout_loss" and "endpoint" in evaluate.arms:
        return False  # an endpoint has none
    return traits.quality and _has_scale(traits)


def _has_scale(traits: MetricTraits) -> bool:
    """Whether it is known that a margin is small: the range is known, or the metric is a logarithm."""
    return traits.name == "heldout_loss" or None not in traits.limits
