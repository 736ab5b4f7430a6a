"""Whether a verdict says more about the data than about the candidate.

The champion's answers to today's items are there, and its scores at earlier verdicts. The same model with the same
items has the same score, so what differs between items that it was judged on and items that are new since then is the
data. Decides nothing.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.artifacts import LabelSources
from schemas.diagnosis import Diagnosis, PastScore
from schemas.errors import GateError
from schemas.gates import GatesSpec
from schemas.metrics import ROUTING_METRICS, MetricTraits
from schemas.spec import Spec
from tasks.assess.evidence import ArmScores
from tasks.curate.redact import masked_place, masked_value

Values = Mapping[str, float]
MIN_FRESH = 20
"""Fresh items without which the champion's fall is not tested."""
MIN_FALL = 0.05
"""Least fall of a share that is named."""
MIN_FALL_DEVIATIONS = 0.2
"""Least fall of another metric, in standard deviations of its values at the earlier verdict: a small effect.
Source: Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988."""
SIGNIFICANCE = 0.01
"""Probability that a champion which is as good as before counts as falling."""


class PastFacts(Spec):
    """What is known of the champion's earlier verdicts besides its scores."""

    has_own: bool = False
    """Whether the first scores are those of its own verdict."""
    n_gone: int = 0
    """Verdicts without scores in the store by now."""


def diagnose(
    champion: ArmScores,
    past: Sequence[ArmScores],
    labels: LabelSources | None,
    gates: GatesSpec,
    *,
    facts: PastFacts,
    without: frozenset[str],
) -> Diagnosis:
    """Compare the champion with itself, and add what was found about labels.

    Args:
        champion: Its scores on today's items.
        past: Its scores at earlier verdicts, its own first.
        without: Items that count for no rule.
    """
    metric = _metric(gates)
    now = {item: value for item, value in _values(champion, metric).items() if item not in without}
    found: list[PastScore] = []
    falls, n_gone = False, facts.n_gone
    for number, scores in enumerate(past):
        then = _values(scores, metric)
        if not then or not now:
            n_gone += 1
            continue
        found.append(_past_score(then, now, is_own=facts.has_own and number == 0))
        if len(found) == 1:
            falls = _falls(then, now, champion.traits(metric))
    # Verdicts leave this machine, while `tunegate data suspects` reads what `labels` has.
    groups = [each.model_copy(update={"name": masked_place(each.name)}) for each in labels.groups] if labels else []
    shifts = [each.model_copy(update={"label": masked_value(each.label)}) for each in labels.shifts] if labels else []
    return Diagnosis(
        metric=metric, past=tuple(found), n_past_gone=n_gone, falls=falls,
        field="" if labels is None else labels.field,
        groups=tuple(groups), shifts=tuple(shifts),
    )  # fmt: skip


def _metric(gates: GatesSpec) -> str:
    """Return the metric of the first rule over all items that compares with the champion, else of the first rule."""
    # What is routed also depends on the threshold, which each run certifies again.
    answers = [rule for rule in gates.judged_rules if rule.metric not in ROUTING_METRICS] or list(gates.judged_rules)
    rules = [rule for rule in answers if rule.slice is None] or answers
    compared = (rule for rule in rules if rule.change_threshold and rule.change_threshold.against == "champion")
    return next(compared, rules[0]).metric


def _values(scores: ArmScores, metric: str) -> Values:
    """Return item -> value; empty if they were not measured, or cannot be read: the gate says what that means."""
    try:
        return scores.values(metric)
    except GateError:
        return {}


def _past_score(then: Values, now: Values, *, is_own: bool) -> PastScore:
    common = sorted(then.keys() & now.keys())
    fresh = sorted(now.keys() - then.keys())
    return PastScore(
        is_own=is_own, n_items=len(then), score=_mean(then[item] for item in sorted(then)) or 0.0,
        n_common=len(common), common_then=_mean(then[item] for item in common),
        common_now=_mean(now[item] for item in common), n_fresh=len(fresh), fresh=_mean(now[item] for item in fresh),
    )  # fmt: skip


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


def _falls(then: Values, now: Values, traits: MetricTraits) -> bool:
    """Return whether the model is worse on fresh items than it was, and no worse on the common ones.

    Shares by Fisher's exact test, other metrics by Welch's t-test, both one-sided.

    Source: Fisher, "The Design of Experiments", 1935; Welch, "The generalization of Student's problem", 1947.
    """
    from scipy.stats import hypergeom, ttest_ind

    common = sorted(then.keys() & now.keys())
    before, fresh = _in_order(then, then), _in_order(now, now.keys() - then.keys())
    if min(len(before), len(fresh)) < MIN_FRESH:
        return False
    least = MIN_FALL_DEVIATIONS * float(before.std()) if traits.continuous else MIN_FALL
    sign = 1.0 if traits.higher_is_better else -1.0
    fall = sign * (before.mean() - fresh.mean())
    fall_on_common = sign * float(np.mean(_in_order(then, common) - _in_order(now, common))) if common else 0.0
    if not (fall > 0 and fall >= least and fall_on_common < max(least, 1e-9)):
        return False
    if traits.continuous:
        p_value = float(ttest_ind(sign * fresh, sign * before, equal_var=False, alternative="less").pvalue)
    else:
        good = 1.0 if traits.higher_is_better else 0.0
        n_good, n_fresh_good = (int((values == good).sum()) for values in (np.concatenate([before, fresh]), fresh))
        p_value = float(hypergeom.cdf(n_fresh_good, len(before) + len(fresh), n_good, len(fresh)))
    return p_value <= SIGNIFICANCE


def _in_order(values: Values, items: Iterable[str]) -> NDArray[np.float64]:
    return np.array([values[item] for item in sorted(items)], np.float64)
