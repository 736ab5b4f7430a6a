"""The comparison with the champion that a gate gets if it declares none.

Used by `PipelineSpec.judged_gates`; `schemas/gates.py` has the rule, `tasks/assess/gate.py` judges it.
"""

from __future__ import annotations

from schemas.evaluation import EvaluateSpec
from schemas.gates import GatesSpec
from schemas.metrics import MetricTraits, traits_by_name, traits_of


def with_comparison(gates: GatesSpec, evaluate: EvaluateSpec) -> GatesSpec:
    """Return the gates with the metric of `compare` filled in, unless a rule compares with the champion already."""
    compare = gates.compare
    if compare.off is not None or compare.metric is not None or gates.compares_with_champion:
        return gates
    filled = compare.model_copy(update={"metric": quality_metric(gates, evaluate)})
    return gates.model_copy(update={"compare": filled})


def quality_metric(gates: GatesSpec, evaluate: EvaluateSpec) -> str:
    """Return the first metric of the rules, else of `evaluate.metrics`, that measures quality; else the held-out loss.

    A metric of unknown range is left out: no margin is known to be small for it.
    """
    known = traits_by_name(evaluate.traits())
    names = (*(rule.metric for rule in gates.rules), *evaluate.declared_names())
    fit = (name for name in names if _fits(traits_of(name, known), evaluate))
    return next(fit, "chrf" if "endpoint" in evaluate.arms else "heldout_loss")


def _fits(traits: MetricTraits, evaluate: EvaluateSpec) -> bool:
    if traits.name == "heldout_loss":
        return "endpoint" not in evaluate.arms  # an endpoint has none
    return traits.quality and None not in traits.limits
