"""Decide whether a rung met its target, what it gained, and whether curation is more promising than the next rung.

Numbers in, numbers and sentences out.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from schemas.choice import TargetSpec
from schemas.errors import GateError
from schemas.metrics import MetricTraits
from tasks.assess.compare import Bounds, clopper_pearson_interval, estimate_mean, tango_interval
from tasks.assess.weigh import MIN_CONTINUOUS_ITEMS, MIN_DIFFERING_ITEMS

FITTED = 0.5
"""Train loss / validation loss. At or below it the train examples are learnt, and more examples are needed."""


def judge_target(
    values: Sequence[float], *, traits: MetricTraits, target: TargetSpec, n_rungs: int
) -> tuple[bool, float | None, str]:
    """Return whether the values meet the target, the bound that decides, and a summary.

    The bound is one-sided at `1 - (1 - confidence) / n_rungs`, so that the probability that any rung stops the climb by
    luck is at most `1 - confidence`. Values without a bound or a finite mean do not meet the target.
    """
    mean = mean_of(values)
    side = "at least" if traits.higher_is_better else "at most"
    wanted = f"{side} {target.value:g}"
    if mean is None:
        return False, None, f"missed: {target.metric} has no finite mean on validation; the target is {wanted}"
    if target.by == "estimate":
        met = mean >= target.value if traits.higher_is_better else mean <= target.value
        return met, None, f"{_met(met)}: the mean is {mean:.4g} (no bound); the target is {wanted}"
    confidence = 1 - (1 - target.confidence) / n_rungs
    bounds = _bounds_of(values, continuous=traits.continuous, confidence=confidence)
    if bounds is None:
        few = f"{len(values)} items are too few to bound {target.metric}; {MIN_CONTINUOUS_ITEMS} are needed"
        return False, None, f"missed: {few}, or set `by: estimate` to use the mean {mean:.4g}"
    bound = bounds.lower if traits.higher_is_better else bounds.upper
    met = bound >= target.value if traits.higher_is_better else bound <= target.value
    level = f"{100 * confidence:.4g} % confidence"
    return met, bound, f"{_met(met)}: the mean {mean:.4g} is {side} {bound:.4g} at {level}; the target is {wanted}"


def paired_gain(
    new: Mapping[str, float], old: Mapping[str, float], *, traits: MetricTraits, confidence: float
) -> Bounds | None:
    """How much better `new` is than `old` on the same items (positive is better); None without bounds.

    Raises:
        GateError: TG0603, they have different items.
    """
    if new.keys() != old.keys():
        raise GateError(
            f"two trainings answered different validation items: {len(new)} and {len(old)}, "
            f"{len(new.keys() & old.keys())} in common",
            code="TG0603",
            where="validation",
        )
    sign = 1.0 if traits.higher_is_better else -1.0
    differences = [sign * (new[item] - old[item]) for item in sorted(new)]
    if not differences or not all(map(math.isfinite, differences)):
        return None
    if traits.continuous:
        return _bounds_of(differences, continuous=True, confidence=confidence)
    won = sum(difference > 0 for difference in differences)
    lost = sum(difference < 0 for difference in differences)
    return tango_interval(won, lost, len(differences), confidence=confidence)


def advise(*, climbed: bool, gain: Bounds | None, train_loss: float | None, validation_loss: float | None) -> str:
    """Why another round of curation is more promising than the next rung; empty if it is not.

    It is if both hold: the train examples are learnt (train loss at most half the validation loss), so that a larger
    model would only learn them better; and the last rung, if there was one, showed no gain (its lower bound is not
    above 0).
    """
    if train_loss is None or validation_loss is None or not math.isfinite(validation_loss) or validation_loss <= 0:
        return ""
    flat = not climbed or gain is None or not gain.lower > 0
    if not (train_loss <= FITTED * validation_loss and flat):
        return ""
    learnt = f"train loss {train_loss:.3g} is at most {100 * FITTED:g} % of validation loss {validation_loss:.3g}"
    shown = " and the last rung showed no gain" if climbed else ""
    return f"more or cleaner tickets are more promising than the next rung: {learnt}{shown}"


def mean_of(values: Sequence[float]) -> float | None:
    """The mean; None without values or if one is not finite.

    >>> mean_of([1.0, float("nan")]) is None, mean_of([]) is None, mean_of([0.0, 1.0])
    (True, True, 0.5)
    """
    return math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else None


def _bounds_of(values: Sequence[float], *, continuous: bool, confidence: float) -> Bounds | None:
    if not continuous:
        return clopper_pearson_interval(sum(value > 0.5 for value in values), len(values), confidence=confidence)
    commonest = Counter(values).most_common(1)[0][1] if values else 0
    if len(values) < MIN_CONTINUOUS_ITEMS or len(values) - commonest < MIN_DIFFERING_ITEMS:
        return None  # as in the gate
    return estimate_mean(np.asarray(values, np.float64)).bounds(confidence=confidence)


def _met(met: bool) -> str:
    return "met" if met else "missed"
