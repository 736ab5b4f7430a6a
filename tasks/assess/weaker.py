"""Name in what a gate is weaker than another one: limits, confidence, items, rules and slices.

Where it is not clear whether a change is looser, it is named, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from schemas.evaluation import EvaluateSpec
from schemas.gates import MIN_GAIN, GateRule, GatesSpec
from schemas.metrics import MetricTraits, traits_by_name, traits_of
from schemas.spec import Spec

_STRICTNESS = {"no_worse": 0, "refresh": 1, "improve": 2}
_CHECKS = ("contamination", "round_trip", "forgetting", "canaries", "latency", "cost", "judge")
_UPPER = {
    "margin", "kl_max", "bound", "p95_ratio_max", "usd_per_1k_max", "exposure_max", "near_threshold", "quote_threshold",
    "paraphrase_threshold",
}  # fmt: skip
"""Settings of checks of which more tolerates more; null is no limit, or the built-in one of `bound`."""
_LOWER = {"max_items", "n_prompts", "n_items", "alternatives"}
"""Settings of checks of which less shows less; null is all."""
_NOT_MEASURED = {
    "arms",
    "endpoint",
    "baseline_system",
    "few_shot_examples",
    "corpus",
    "batch_size",
    "threads",
    "slices",
}
"""Keys of `evaluate` that change no score of a candidate; what they say of the arms is in `_arms`."""
_OF_BASELINES = ("baseline_system", "few_shot_examples")
"""Keys of `evaluate` that change the scores of prompting arms."""


def weaker_than(
    before: GatesSpec,
    now: GatesSpec,
    *,
    evaluate: tuple[EvaluateSpec | None, EvaluateSpec | None] = (None, None),
    traits: tuple[Sequence[MetricTraits], Sequence[MetricTraits]] = ((), ()),
) -> list[str]:
    """Return a sentence for each setting by which the gate is weaker than it was, or may be; empty if none is.

    Args:
        evaluate: How answers are scored, before and now.
        traits: Declared metrics, before and now.

    >>> rule = GateRule(metric="exact", value_threshold=0.5)
    >>> weaker_than(GatesSpec(rules=(rule,)), GatesSpec(rules=(rule,), confidence=0.9))
    ['confidence is 0.9, and was 0.95']
    """
    return list(
        dict.fromkeys([*_general(before, now), *_rules(before, now, traits[0]), *_checks(before, now),
                       *_slices(before, now), *_measured(evaluate), *_arms((before, now), evaluate),
                       *_traits(before, evaluate, traits)])
    )  # fmt: skip


def _general(before: GatesSpec, now: GatesSpec) -> Iterator[str]:
    if now.confidence < before.confidence:
        yield _was("confidence", before.confidence, now.confidence)
    if now.min_items < before.min_items:
        yield _was("min_items", before.min_items, now.min_items)
    if now.compare.off is not None and before.compare.off is None:
        yield f"the comparison with the champion is off: {now.compare.off}"
    if (before.if_missing, now.if_missing) == ("error", "baseline"):
        yield _was("if_missing", before.if_missing, now.if_missing)
    if before.anchor is not None:
        if now.anchor is None:
            yield "the anchor is gone: champions may drift"
        else:
            if now.anchor.version != before.anchor.version:
                yield _was("anchor.version", before.anchor.version, now.anchor.version)
            old, new = before.anchor.margin, now.anchor.margin
            if old != new and (old is None or new is None or new > old):  # null is the rule's margin
                yield _was("anchor.margin", before.anchor.margin, now.anchor.margin)
    if now.cluster_by != before.cluster_by and before.cluster_by is not None:
        yield _was("cluster_by", before.cluster_by, now.cluster_by)
    if now.looks.max > before.looks.max:
        yield _was("looks.max", before.looks.max, now.looks.max)
    for key in ("at", "spend"):
        if getattr(now.looks, key) != getattr(before.looks, key):
            yield _was(f"looks.{key}", getattr(before.looks, key), getattr(now.looks, key))
    if before.reuse is not None:
        if now.reuse is None:
            yield "reuse is null: the same items may judge any number of candidates"
        else:
            if now.reuse.budget > before.reuse.budget:
                yield _was("reuse.budget", before.reuse.budget, now.reuse.budget)
            if (before.reuse.spend, now.reuse.spend) == ("split", "none"):
                yield _was("reuse.spend", before.reuse.spend, now.reuse.spend)


def _rules(before: GatesSpec, now: GatesSpec, traits: Sequence[MetricTraits]) -> Iterator[str]:
    known = traits_by_name(traits)
    for rule in before.judged_rules:
        higher = traits_of(rule.metric, known).higher_is_better
        alike = [list(_looser(rule, each, higher)) for each in now.judged_rules if _key(each) == _key(rule)]
        if not alike:
            yield f"the rule is gone: {_describe(rule)}"
        else:
            yield from min(alike, key=len)


def _key(rule: GateRule) -> tuple[str, str | None, str]:
    change = rule.change_threshold
    return rule.metric, rule.slice, "value" if change is None else change.against


def _describe(rule: GateRule) -> str:
    where = f" in {rule.slice}" if rule.slice else ""
    change = rule.change_threshold
    if change is None:
        return f"{rule.metric}{where} limited by {rule.value_threshold:g}"
    return f"{rule.metric}{where} against {change.against}, mode {change.mode}"


def _looser(before: GateRule, now: GateRule, higher: bool) -> Iterator[str]:
    name = f"{before.metric}{f' in {before.slice}' if before.slice else ''}"
    for key in ("value_threshold", "hard_limit"):
        old, new = getattr(before, key), getattr(now, key)
        if old is not None and (new is None or (new < old if higher else new > old)):
            yield _was(f"{key} of {name}", old, new)
    was, change = before.change_threshold, now.change_threshold
    if was is None or change is None:
        return
    if _STRICTNESS[change.mode] < _STRICTNESS[was.mode]:
        yield _was(f"mode of {name} against {was.against}", was.mode, change.mode)
    if change.margin > was.margin:
        yield _was(f"margin of {name} against {was.against}", was.margin, change.margin)
    old_gain, new_gain = (MIN_GAIN if each.min_gain is None else each.min_gain for each in (was, change))
    if was.mode == change.mode == "refresh" and (
        new_gain < old_gain or (was.min_gain is None and change.min_gain is not None and new_gain <= old_gain)
    ):
        yield _was(f"min_gain of {name} against {was.against}", was.min_gain, change.min_gain)


def _checks(before: GatesSpec, now: GatesSpec) -> Iterator[str]:
    for check in _CHECKS:
        was, spec = getattr(before, check), getattr(now, check)
        if was is not None and spec is None:
            yield f"the check is gone: {check}"
        elif was is not None:
            yield from _of_check(check, was, spec)


def _of_check(check: str, before: Spec, now: Spec) -> Iterator[str]:
    for key in type(before).model_fields:
        old, new = getattr(before, key), getattr(now, key)
        if old == new:
            continue
        is_stricter = (key in _UPPER and not _is_more(old, new)) or (key in _LOWER and _is_more(old, new))
        if key == "bound" and (old is None) != (new is None):
            is_stricter = False  # what null is depends on the arithmetic
        if not is_stricter:
            yield _was(f"{check}.{key}", old, new)


def _slices(before: GatesSpec, now: GatesSpec) -> Iterator[str]:
    if before.slices is None:
        return
    if now.slices is None:
        yield f"no slice is guarded, and {', '.join(before.slices.by)} were"
        return
    if gone := [column for column in before.slices.by if column not in now.slices.by]:
        yield f"slices are not guarded any more: {', '.join(gone)}"
    if now.slices.metric != before.slices.metric:
        yield _was("slices.metric", before.slices.metric, now.slices.metric)
    if now.slices.top_up < before.slices.top_up:
        yield _was("slices.top_up", before.slices.top_up, now.slices.top_up)


def _measured(evaluate: tuple[EvaluateSpec | None, EvaluateSpec | None]) -> Iterator[str]:
    before, now = ({} if each is None else each.model_dump(mode="json") for each in evaluate)
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old == new or key in _NOT_MEASURED or (key == "max_items" and _is_more(old, new)):
            continue
        yield f"evaluate.{key} is another: {_short(old)} before, {_short(new)} now"


def _arms(
    gates: tuple[GatesSpec, GatesSpec], evaluate: tuple[EvaluateSpec | None, EvaluateSpec | None]
) -> Iterator[str]:
    """In what the arms that rules compare with are others: a worse model in their place is easier to beat."""
    (before, now), (was, spec) = gates, evaluate
    against = {rule.change_threshold.against for rule in before.judged_rules if rule.change_threshold is not None}
    baselines = "best_baseline" in against or ("champion" in against and before.if_missing == "baseline")
    if baselines and now.has_incumbent and not before.has_incumbent:
        yield "a rule compares with the endpoint, which is no baseline then, and replaces a champion that is missing"
    if was is None or spec is None:
        return
    for arm in was.arms if baselines else ():
        if arm not in spec.arms:
            yield f"the arm {arm} is gone, which candidates had to beat"
    for key in _OF_BASELINES if baselines else ():
        old, new = getattr(was, key), getattr(spec, key)
        if old != new:
            yield f"evaluate.{key}, of the arms to beat, is another: {_short(old)} before, {_short(new)} now"
    if was.endpoint is None or spec.endpoint is None or not (before.has_incumbent or baselines):
        return
    for key in ("base_url", "model", "system"):
        old, new = getattr(was.endpoint, key), getattr(spec.endpoint, key)
        if old != new:
            yield _was(f"evaluate.endpoint.{key}", old, new)
    if spec.endpoint.max_incomplete > was.endpoint.max_incomplete:
        yield _was("evaluate.endpoint.max_incomplete", was.endpoint.max_incomplete, spec.endpoint.max_incomplete)


def _traits(
    before: GatesSpec,
    evaluate: tuple[EvaluateSpec | None, EvaluateSpec | None],
    traits: tuple[Sequence[MetricTraits], Sequence[MetricTraits]],
) -> Iterator[str]:
    """Metrics that are judged and have other properties, such as the direction: declaring one anew may turn it."""
    old, new = (
        traits_by_name([*declared, *(spec.traits() if spec is not None else ())])
        for declared, spec in zip(traits, evaluate, strict=True)
    )
    for name in dict.fromkeys([*(each.name for each in traits[0]), *before.judged_metrics()]):
        if traits_of(name, old) != traits_of(name, new):
            yield f"the metric {name} is declared otherwise"


def _is_more(old: float | None, new: float | None) -> bool:
    """Whether a number rose; null is the highest."""
    return old is not None and (new is None or new > old)


def _was(what: str, old: Any, new: Any) -> str:
    return f"{what} is {_short(new)}, and was {_short(old)}"


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        value = list(value)
    text = "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
