"""Assess every rule of a gate, the anchor of each `refresh` rule, and each guarded slice.

Finds the items and the reference, pairs their scores and judges them. `tasks/assess/gate.py`, which calls it, decides
the verdict over all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from schemas.artifacts import EvalSet
from schemas.errors import GateError
from schemas.gates import LEAST_ITEMS, AnchorSpec, ChangeThreshold, GateRule, GatesSpec, SliceGuard
from schemas.metrics import SAFETY_NAMES, MetricTraits
from schemas.verdicts import Part, Verdict
from tasks.assess.clusters import Clusters
from tasks.assess.decision import describe_anchor, describe_guard, describe_rule
from tasks.assess.evidence import (
    UNLABELLED,
    Arms,
    Paired,
    Reference,
    find_anchor,
    find_baseline,
    find_champion,
    line_up,
)
from tasks.assess.judge import ChangeTest, Judgement, ValueTest, judge_change, judge_value
from tasks.assess.weigh import MIN_CONTINUOUS_ITEMS, Kind, method_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Assessment:
    """One rule, anchor or guard with its judgement, or with the reason for none."""

    rule: str
    metric: str
    slice: str | None
    method: str
    n_items: int = 0
    limit: float | None = None
    baseline: str | None = None
    judgement: Judgement | None = None
    verdict: Verdict = "ERROR"
    """If there is no judgement."""
    reason: str = ""
    """If there is no judgement, or if there are too few items to be met (`short`)."""
    higher_is_better: bool = True
    short: bool = False
    """There are too few items, so the rule cannot be met."""
    decides: bool = True
    part: Part = "primary"


def assess_rules(arms: Arms, gates: GatesSpec, items: EvalSet | None) -> tuple[Assessment, ...]:
    """Assess the rules in their order, each `refresh` followed by its anchor; then the slices by name."""
    return _Assessor(arms, gates, items).all()


class _Assessor:
    """Assesses the parts of one gate."""

    def __init__(self, arms: Arms, gates: GatesSpec, items: EvalSet | None) -> None:
        self._arms = arms
        self._gates = gates
        self._items = items
        self._clusters: Clusters | None = None

    def all(self) -> tuple[Assessment, ...]:
        found: list[Assessment] = []
        for rule in self._gates.rules:
            found.append(replace(self._rule(rule), part=_part_of(rule, self._arms.candidate.traits(rule.metric))))
            found += self._anchor(rule)
        if (added := self._gates.added_rule) is not None and not self._is_declared(added):
            # Fewer items than by default would make a comparison that is not asked for a formality.
            continuous = self._arms.candidate.traits(added.metric).continuous
            least = max(self._gates.min_items, LEAST_ITEMS, MIN_CONTINUOUS_ITEMS if continuous else 0)
            found += [
                replace(each, rule=f"{each.rule} (gates.compare)")
                for each in (self._rule(added, min_items=least), *self._anchor(added, min_items=least))
            ]
        if self._gates.slices is not None:
            found += [replace(each, part="slices") for each in self._slices(self._gates.slices)]
        return tuple(found)

    def _is_declared(self, added: GateRule) -> bool:
        """Without a champion it is `improve` on the best prompting arm: once, if a rule says that already."""
        same = GateRule(metric=added.metric, change_threshold=ChangeThreshold(against="best_baseline"))
        replaced = self._arms.champion is None and self._gates.if_missing == "baseline"
        return replaced and same in self._gates.rules

    def _rule(self, rule: GateRule, *, min_items: int | None = None) -> Assessment:
        reference: Reference | None = None
        change = rule.change_threshold
        try:
            items = self._slice_items(rule)
            if change is not None and change.against == "champion":
                reference = find_champion(self._arms, self._gates, metric=rule.metric, items=items)
            elif change is not None:
                reference = find_baseline(self._arms, metric=rule.metric, items=items)
            margin = None if change is None or change.mode == "improve" else change.margin
            if reference is not None and reference.replaced and change is not None and change.mode == "refresh":
                margin = None
            # Non-inferiority alone is what the anchor is judged by.
            kind: Kind | None = "anchor" if change is not None and change.mode == "no_worse" else None
            return self._judged(rule, describe_rule(
                rule,
                higher_is_better=self._arms.candidate.traits(rule.metric).higher_is_better,
                against=reference.name if reference else "",
                replaced=reference is not None and reference.replaced,
            ), reference, margin, kind=kind, min_items=min_items)  # fmt: skip
        except GateError as error:
            text = describe_rule(rule, higher_is_better=self._arms.candidate.traits(rule.metric).higher_is_better)
            return self._refused(rule, text, error)

    def _anchor(self, rule: GateRule, *, min_items: int | None = None) -> Iterator[Assessment]:
        change, anchor = rule.change_threshold, self._gates.anchor
        if change is None or change.mode == "improve" or change.against != "champion" or anchor is None:
            return
        margin = anchor.margin or change.margin
        try:
            reference = find_anchor(self._arms)
            if reference is not None:
                text = describe_anchor(rule, margin=margin, against=reference.name)
                yield self._judged(rule, text, reference, margin, kind="anchor", min_items=min_items)
        except GateError as error:
            yield self._refused(rule, describe_anchor(rule, margin=margin, against=_anchor_name(anchor)), error)

    def _slices(self, guard: SliceGuard) -> Iterator[Assessment]:
        candidate = self._arms.candidate
        for column in guard.by:
            rule = GateRule(metric=guard.metric, slice=f"{column}=", value_threshold=0.0)
            try:
                self._slice_items(rule)
                names = sorted(name for name in candidate.slices if name.partition("=")[0] == column)
            except GateError as error:
                yield self._refused(rule, describe_guard(guard.metric, f"each {column}", "champion"), error)
                continue
            for name in names:
                yield self._slice(rule.model_copy(update={"slice": name}), guard)

    def _slice(self, rule: GateRule, guard: SliceGuard) -> Assessment:
        text = describe_guard(rule.metric, rule.slice or "", "champion")
        try:
            items = self._slice_items(rule) or frozenset()
            decides = guard.small == "hold"
            if len(items) < guard.min_slice_items:
                reason = (
                    f"{rule.slice} has {len(items)} items, and fewer than {guard.min_slice_items} are not judged; "
                    f"{guard.min_slice_items - len(items):,} more are needed."
                )
                return self._unjudged(rule, text, "HOLD", reason, n_items=len(items), decides=decides)
            reference = find_champion(self._arms, self._gates, metric=rule.metric, items=items)
            text = describe_guard(rule.metric, rule.slice or "", reference.name)
            found = self._judged(rule, text, reference, None, kind="guard", min_items=1)
            if found.judgement is not None and found.judgement.lower is None:
                return self._unjudged(rule, text, "HOLD", found.judgement.reason, n_items=len(items), decides=decides)
            return found
        except GateError as error:
            return self._refused(rule, text, error)

    def _judged(
        self, rule: GateRule, text: str, reference: Reference | None, margin: float | None, *,
        kind: Kind | None = None, min_items: int | None = None,
    ) -> Assessment:  # fmt: skip
        min_items = self._gates.min_items if min_items is None else min_items
        candidate, traits = self._arms.candidate, self._arms.candidate.traits(rule.metric)
        paired = line_up(candidate, reference.scores if reference else None, metric=rule.metric, slice_name=rule.slice)
        n_items = paired.n_items
        short = (
            f"{rule.slice or 'the held-out set'} has {n_items} items and {_least(self._gates, min_items)}; "
            f"{max(0, min_items - n_items):,} more are needed before this rule can be met."
        )
        if n_items == 0:
            return self._unjudged(rule, text, "HOLD", short)
        clusters, limit, confidence = self._clusters_of(paired), rule.value_threshold, 1 - self._gates.alpha
        if reference is not None and paired.reference is not None:
            limit = None
            change = ChangeTest(
                traits, confidence, reference.name, margin=margin, kind=kind, sign_tested=kind != "guard"
            )
            judgement = judge_change(paired.candidate, paired.reference, change, clusters=clusters)
        elif limit is not None:
            value = ValueTest(traits, confidence, limit, hard_limit=rule.hard_limit)
            judgement = judge_value(paired.candidate, value, clusters=clusters)
        else:
            raise GateError(f"there is nothing to compare {rule.metric} with", code="TG0605")
        return Assessment(
            rule=text, metric=rule.metric, slice=rule.slice, method=judgement.method, n_items=n_items, limit=limit,
            baseline=reference.baseline if reference else None, judgement=judgement, reason=short,
            short=n_items < min_items, higher_is_better=traits.higher_is_better,
        )  # fmt: skip

    def _clusters_of(self, paired: Paired) -> NDArray[np.int64] | None:
        column = self._gates.cluster_by
        if column is None:
            return None
        if self._clusters is None:
            self._clusters = Clusters.read(self._items, column)
        return self._clusters.of(paired.item_ids)

    def _slice_items(self, rule: GateRule) -> frozenset[str] | None:
        """Ids of the rule's slice; None for a rule over all items.

        Raises:
            GateError: TG0606, the items were not sliced by that column.
        """
        if rule.slice is None:
            return None
        slices, column = self._arms.candidate.slices, rule.slice.partition("=")[0]
        if not any(name.partition("=")[0] == column for name in slices):
            raise GateError(f"the items were not sliced by {column}; add it to evaluate.slices", code="TG0606")
        return slices.get(rule.slice, frozenset())

    def _refused(self, rule: GateRule, text: str, error: GateError) -> Assessment:
        if error.code == UNLABELLED:
            return self._unjudged(rule, text, "HOLD", f"{error.message}, then run again.")
        return self._unjudged(rule, text, "ERROR", f"{error.message}; fix that and run again.")

    def _unjudged(
        self, rule: GateRule, text: str, verdict: Verdict, reason: str, *, n_items: int = 0, decides: bool = True
    ) -> Assessment:
        kind = "value" if rule.change_threshold is None and rule.value_threshold is not None else "change"
        return Assessment(
            rule=text, metric=rule.metric, slice=rule.slice, verdict=verdict, reason=reason, n_items=n_items,
            limit=rule.value_threshold if decides else None, decides=decides,
            method=method_of(
                self._arms.candidate.traits(rule.metric),
                kind="value" if kind == "value" else "change",
                clustered=self._gates.cluster_by is not None,
            ),
        )  # fmt: skip


def _least(gates: GatesSpec, min_items: int) -> str:
    if min_items > gates.min_items and gates.added_rule is not None:
        return f"the comparison by gates.compare needs {min_items}, whatever gates.min_items is"
    return f"gates.min_items is {min_items}"


def _part_of(rule: GateRule, traits: MetricTraits) -> Part:
    if traits.safety or rule.metric in SAFETY_NAMES:
        return "safety"
    return "baseline" if rule.change_threshold and rule.change_threshold.against == "best_baseline" else "primary"


def _anchor_name(anchor: AnchorSpec) -> str:
    return f"anchor ({'first champion' if anchor.version == 'first' else f'version {anchor.version}'})"
