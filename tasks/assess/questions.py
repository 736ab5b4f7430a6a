"""Assess every rule of a gate, the anchor of each `refresh` rule, and each guarded slice.

Finds the items and the reference, pairs their scores and judges them. `gate.py` decides the verdict over all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from schemas.artifacts import EvalSet
from schemas.comparison import compares_quality
from schemas.errors import GateError
from schemas.gates import LEAST_ITEMS, AnchorSpec, ChangeThreshold, GateRule, GatesSpec, SliceGuard
from schemas.metrics import RIGHT, ROUTED_ACCURACY, SAFETY_NAMES, MetricTraits
from schemas.verdicts import Part, Verdict
from tasks.assess.clusters import Clusters
from tasks.assess.contract import held_from, loss_chances
from tasks.assess.decision import describe_anchor, describe_guard, describe_rule
from tasks.assess.evidence import (
    UNLABELLED,
    Arms,
    Paired,
    Reference,
    find_anchor,
    find_baselines,
    find_champion,
    find_endpoint,
    incumbents,
    line_up,
)
from tasks.assess.interim import Aim, aim_of, gain_chances, value_chances
from tasks.assess.judge import ChangeTest, Judgement, ValueTest, judge_change, judge_value
from tasks.assess.pass_chance import Comparison
from tasks.assess.power import ASSUMED_DISCORDANCE
from tasks.assess.weigh import MIN_CONTINUOUS_ITEMS, Kind, method_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class SliceLoss:
    """What a slice's loss is worth next to the other slices of its column (`contract.loss_chances`)."""

    chance: float
    """That it is more than `least`, 0-1."""
    least: float
    """In the metric's unit."""
    is_probable: bool
    """Whether the candidate is held for it."""


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
    rivals: tuple[Assessment, ...] = ()
    """The same rule against the other baselines, each of which must be beaten too."""
    verdict: Verdict = "ERROR"
    """If there is no judgement."""
    reason: str = ""
    """If there is no judgement, or why it cannot be met (`short`)."""
    higher_is_better: bool = True
    short: bool = False
    """It cannot be met: there are too few items, or the margin tolerates whatever is answered."""
    missing: int = 0
    """Items that are missing if there are too few."""
    decides: bool = True
    part: Part = "primary"
    unlabelled: bool = False
    """No judgement, because answers have no labels."""
    in_points: bool = False
    """The metric is a share."""
    compared: Comparison | None = None
    """Of a comparison over all items on which the models differ."""
    loss: SliceLoss | None = None
    """Of a guarded slice with a judgement."""
    chances: tuple[float, float] | None = None
    """Of an interim look: the chance that the rule is met with all planned items, before the first answer and now."""


def look_at_rules(
    arms: Arms, gates: GatesSpec, items: EvalSet, *, alpha: float, extra: frozenset[str], n_planned: int
) -> tuple[Assessment, ...]:
    """Return the chance of each rule over all items, and of its anchor, after some of `n_planned` items.

    Each baseline that a rule compares with has its own. The other arguments are those of `assess_rules`.
    """
    whole = tuple(rule for rule in gates.rules if rule.slice is None)
    gates = gates.model_copy(update={"rules": whole, "slices": None})
    found = _Assessor(arms, gates, items, alpha, extra, n_planned).all()
    return tuple(each for first in found for each in (first, *first.rivals))


def assess_rules(
    arms: Arms, gates: GatesSpec, items: EvalSet | None, *, alpha: float, extra: frozenset[str] = frozenset()
) -> tuple[Assessment, ...]:
    """Assess the rules in their order, each `refresh` followed by its anchor; then the slices by name.

    Args:
        alpha: Error probability of each rule.
        extra: Ids of the items that `gates.slices.top_up` added: only the slices count them.
    """
    found = _Assessor(arms, gates, items, alpha, extra).all()
    if not any(each.unlabelled for each in found):
        return found
    return tuple(_decide_by_labels(found, arms, gates, items, alpha=alpha, extra=extra))


def rules_without_labels(
    arms: Arms, gates: GatesSpec, items: EvalSet, *, alpha: float, extra: frozenset[str]
) -> tuple[str, ...]:
    """Return the rules, anchors and slices that missing labels can still decide."""
    compare = gates.compare if gates.compare.metric == RIGHT else gates.compare.model_copy(update={"metric": None})
    by_labels = {
        "rules": tuple(rule for rule in gates.rules if rule.metric == RIGHT),
        "compare": compare,
        "slices": gates.slices if gates.slices is not None and gates.slices.metric == RIGHT else None,
    }
    found = assess_rules(arms, gates.model_copy(update=by_labels), items, alpha=alpha, extra=extra)
    return tuple(each.rule for each in found if each.unlabelled)


def _decide_by_labels(
    found: Sequence[Assessment],
    arms: Arms,
    gates: GatesSpec,
    items: EvalSet | None,
    *,
    alpha: float,
    extra: frozenset[str] = frozenset(),
) -> Iterator[Assessment]:
    """Yield each assessment that lacks labels as the labels decide that there are, if the others cannot change it.

    It is met if it is met with every missing label against the candidate. With every missing label in its favour it is
    violated for certain, or cannot be met, which is HOLD. The number of tests of the slices depends on their labels: a
    slice is never blocked before they are complete, and passes if the worst case is no evidence of harm even as the
    only test. It waits if another guard shares that number.
    """
    n_missing = sum(value is None for value in arms.labels.values())
    n_tests = sum(1 + len(each.rivals) for each in found) + sum(
        spec is not None for spec in (gates.judge, gates.forgetting)
    )
    # Surely rejected among all tests, at the level of harm too, which is more than half of alpha at every look.
    surely = alpha / (2 * n_tests)
    worst, best = (
        _Assessor(arms.completed(accept=accept), gates, items, alpha, extra).all() for accept in (False, True)
    )
    for each, against, favour in zip(found, worst, best, strict=True):
        if not each.unlabelled or gates.cluster_by is not None:  # a clustered bound need not grow with each item won
            yield each
        elif favour.judgement is None:  # no label mends what else is wrong
            yield favour
        elif each.part == "slices" and (gates.judge is not None or gates.forgetting is not None):
            yield each
        elif _is_met(against):
            yield _count_missing(against, n_missing, "against")
        elif each.part != "slices" and not _is_met(favour):
            harms = (one.judgement.p_harm for one in (favour, *favour.rivals) if one.judgement is not None)
            if min(harms) <= surely:
                yield _count_missing(favour, n_missing, "in favour of")
            else:
                yield replace(each, reason=_never_met(favour, n_missing), missing=favour.missing, unlabelled=False)
        else:
            yield each


def _is_met(assessment: Assessment) -> bool:
    return all(
        each.judgement is not None
        and each.judgement.verdict == "PROMOTE"
        and not each.short
        and not (each.loss and each.loss.is_probable)
        for each in (assessment, *assessment.rivals)
    )


def _never_met(favour: Assessment, n_missing: int) -> str:
    if favour.short:
        return favour.reason
    return (
        f"answers without a label ({n_missing}) cannot change this: it would not be met if all of them favoured the "
        "candidate; `tunegate gate label RUN --all` asks for them, and may show that it is worse."
    )


def _count_missing(assessment: Assessment, n_missing: int, side: str) -> Assessment:
    """Say in the reasons how the missing labels count."""
    judgement = assessment.judgement
    if judgement is not None:
        said = f"answers without a label ({n_missing}) count {side} the candidate"
        judgement = replace(
            judgement,
            reason=f"{judgement.reason.removesuffix('.')}; {said}.",
            if_not_blocked=f"{judgement.if_not_blocked}; {said}",
        )
    rivals = tuple(_count_missing(each, n_missing, side) for each in assessment.rivals)
    return replace(assessment, judgement=judgement, rivals=rivals)


class _Assessor:
    """Assesses the parts of one gate."""

    def __init__(
        self,
        arms: Arms,
        gates: GatesSpec,
        items: EvalSet | None,
        alpha: float,
        extra: frozenset[str],
        n_planned: int | None = None,
    ) -> None:
        self._arms = arms
        self._gates = gates
        self._items = items
        self._alpha = alpha
        self._extra = extra
        self._n_planned = n_planned
        self._clusters: Clusters | None = None

    def all(self) -> tuple[Assessment, ...]:
        found: list[Assessment] = []
        judged: dict[GateRule, GateRule] = {}
        for rule in self._gates.rules:  # a finding twice would make harm harder to show
            judged.setdefault(self._as_judged(rule), rule)
        for rule in judged.values():
            found.append(_marked(self._rule(rule), _part_of(rule, self._arms.candidate.traits(rule.metric))))
            found += self._anchor(rule)
        if (added := self._gates.added_rule) is not None and not self._is_declared(added):
            # Fewer items than by default would make a comparison that is not asked for a formality.
            continuous = self._arms.candidate.traits(added.metric).continuous
            least = max(self._gates.min_items, LEAST_ITEMS, MIN_CONTINUOUS_ITEMS if continuous else 0)
            found += [
                _marked(each, each.part, suffix=" (gates.compare)")
                for each in (self._rule(added, min_items=least), *self._anchor(added, min_items=least))
            ]
        if self._gates.slices is not None:
            found += _weighed([_marked(each, "slices") for each in self._slices(self._gates.slices)])
        return tuple(found)

    def _is_declared(self, added: GateRule) -> bool:
        """Whether a rule is the same test without a champion, whatever margin it has against one, or compares with an
        incumbent, which is in the champion's place then."""
        replaced = self._as_judged(added)
        if replaced != added and self._compares_with_incumbent():
            return True
        return replaced != added and replaced in map(self._as_judged, self._gates.rules)

    def _compares_with_incumbent(self) -> bool:
        candidate = self._arms.candidate
        return any(
            compares_quality(rule, candidate.traits(rule.metric), against="endpoint") for rule in self._gates.rules
        )

    def _as_judged(self, rule: GateRule) -> GateRule:
        """Return the test that it is: without a champion the baselines, which `refresh` must improve on."""
        change = rule.change_threshold
        if self._arms.champion is not None or self._gates.if_missing != "baseline":
            return rule
        if change is None or change.against != "champion":
            return rule
        kept = change if change.mode == "no_worse" else ChangeThreshold()
        return rule.model_copy(update={"change_threshold": kept.model_copy(update={"against": "best_baseline"})})

    def _rule(self, rule: GateRule, *, min_items: int | None = None) -> Assessment:
        change, traits = rule.change_threshold, self._arms.candidate.traits(rule.metric)
        try:
            items = self._slice_items(rule)
            if change is None:
                text = describe_rule(rule, higher_is_better=traits.higher_is_better)
                return self._judged(rule, text, None, min_items=min_items)
            references = self._references(rule.metric, change, items)
            found = [self._compared(rule, change, each, min_items=min_items) for each in references]
            return replace(found[0], rivals=tuple(found[1:]))
        except GateError as error:
            return self._refused(rule, describe_rule(rule, higher_is_better=traits.higher_is_better), error)

    def _references(self, metric: str, change: ChangeThreshold, items: frozenset[str] | None) -> tuple[Reference, ...]:
        if change.against == "champion":
            return find_champion(self._arms, self._gates, metric=metric, items=items)
        if change.against == "endpoint":
            return (find_endpoint(self._arms),)
        return find_baselines(self._arms, metric=metric, items=items, without=incumbents(self._gates))

    def _compared(
        self, rule: GateRule, change: ChangeThreshold, reference: Reference, *, min_items: int | None
    ) -> Assessment:
        """The rule against one reference. In place of a champion that is missing, `refresh` is `improve`."""
        margin = None if change.mode == "improve" else change.margin
        if reference.replaced and change.mode == "refresh":
            margin = None
        # Non-inferiority alone is what the anchor is judged by.
        kind: Kind | None = "anchor" if change.mode == "no_worse" else None
        text = describe_rule(
            rule,
            higher_is_better=self._arms.candidate.traits(rule.metric).higher_is_better,
            against=reference.name,
            replaced=reference.replaced,
        )
        min_gain = 0.0 if margin is None else change.least_gain
        found = self._judged(rule, text, reference, margin, kind=kind, min_items=min_items, min_gain=min_gain)
        found = replace(found, compared=self._comparison(rule, change, found, replaced=reference.replaced))
        reason = None
        if change.mode == "no_worse" and found.judgement is not None:
            reason = _tolerates_all(found.judgement, self._arms.candidate.traits(rule.metric), change.margin)
        return found if reason is None else replace(found, short=True, reason=reason)

    def _comparison(
        self, rule: GateRule, change: ChangeThreshold, found: Assessment, *, replaced: bool
    ) -> Comparison | None:
        """What is compared, with so many items and differences; None if nothing differs, or of a slice."""
        judged, traits = found.judgement, self._arms.candidate.traits(rule.metric)
        if judged is None or judged.sd is None or rule.slice is not None:
            return None
        if replaced and change.mode == "refresh":
            change = ChangeThreshold(mode="improve")
        paired = not traits.continuous and self._gates.cluster_by is None
        variance = ((judged.won or 0) + (judged.lost or 0)) / found.n_items if paired else judged.sd**2
        return Comparison(change, found.n_items, variance, paired, self._alpha) if variance else None

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
                yield self._slice(rule.model_copy(update={"slice": name}))

    def _slice(self, rule: GateRule) -> Assessment:
        text = describe_guard(rule.metric, rule.slice or "", "champion")
        try:
            items = self._slice_items(rule)
            references = find_champion(self._arms, self._gates, metric=rule.metric, items=items, guards=True)
            found = [
                self._judged(
                    rule, describe_guard(rule.metric, rule.slice or "", each.name), each, kind="guard", min_items=1
                )
                for each in references
            ]
            return replace(found[0], rivals=tuple(found[1:]))
        except GateError as error:
            return self._refused(rule, text, error)

    def _judged(
        self, rule: GateRule, text: str, reference: Reference | None, margin: float | None = None, *,
        kind: Kind | None = None, min_items: int | None = None, min_gain: float | None = 0.0,
    ) -> Assessment:  # fmt: skip
        min_items = self._gates.min_items if min_items is None else min_items
        candidate, traits = self._arms.candidate, self._arms.candidate.traits(rule.metric)
        paired = line_up(
            candidate, reference.scores if reference else None, metric=rule.metric, slice_name=rule.slice,
            without=frozenset() if kind == "guard" else self._extra,
        )  # fmt: skip
        n_items = paired.n_items
        missing = max(0, min_items - n_items)
        short = (
            f"{rule.slice or 'the held-out set'} has {n_items} {_items(rule.metric)} and "
            f"{_least(self._gates, min_items)}; "
            f"{missing:,} more are needed before this rule can be met."
        )
        if n_items == 0:
            return replace(self._unjudged(rule, text, "HOLD", short), missing=missing)
        clusters, limit, confidence = self._clusters_of(paired), rule.value_threshold, 1 - self._alpha
        planned = self._gates.power
        if self._n_planned is not None:
            kind = kind or ("improve" if margin is None else "refresh")
            aim = aim_of(kind, margin=margin or 0.0, min_gain=min_gain, alpha=self._alpha, effect=planned.effect)
            chances = self._chances(paired, traits, limit, aim, clusters)
            return Assessment(
                rule=text, metric=rule.metric, slice=None, method="", n_items=n_items, chances=chances
            )  # fmt: skip
        if reference is not None and paired.reference is not None:
            limit = None
            change = ChangeTest(
                traits, confidence, reference.name, margin=margin, kind=kind, min_gain=min_gain, planned=planned,
            )  # fmt: skip
            judgement = judge_change(paired.candidate, paired.reference, change, clusters=clusters)
        elif limit is not None:
            value = ValueTest(traits, confidence, limit, hard_limit=rule.hard_limit, planned=planned)
            judgement = judge_value(paired.candidate, value, clusters=clusters)
        else:
            raise GateError(f"there is nothing to compare {rule.metric} with", code="TG0605")
        return Assessment(
            rule=text, metric=rule.metric, slice=rule.slice, method=judgement.method, n_items=n_items, limit=limit,
            baseline=reference.baseline if reference else None, judgement=judgement, reason=short,
            short=n_items < min_items, missing=missing, higher_is_better=traits.higher_is_better,
            in_points=traits.limits == (0.0, 1.0),
        )  # fmt: skip

    def _chances(
        self,
        paired: Paired,
        traits: MetricTraits,
        limit: float | None,
        aim: Aim,
        clusters: NDArray[np.int64] | None,
    ) -> tuple[float, float]:
        power, sign, planned = self._gates.power, 1.0 if traits.higher_is_better else -1.0, self._n_planned or 0
        if paired.reference is not None:
            return gain_chances(
                sign * (paired.candidate - paired.reference), planned, aim=aim, continuous=traits.continuous,
                discordance=power.discordance or ASSUMED_DISCORDANCE, clusters=clusters,
            )  # fmt: skip
        limit = limit or 0.0
        values, least = paired.candidate, limit
        if sign < 0:
            values, least = (-values, -limit) if traits.continuous or clusters is not None else (1 - values, 1 - limit)
        return value_chances(
            values, planned, limit=least, effect=power.effect, alpha=aim.alpha, continuous=traits.continuous,
            clusters=clusters,
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
            held = self._unjudged(rule, text, "HOLD", f"{error.message}, then run again.")
            return replace(held, unlabelled=True)
        return self._unjudged(rule, text, "ERROR", f"{error.message}; fix that and run again.")

    def _unjudged(self, rule: GateRule, text: str, verdict: Verdict, reason: str) -> Assessment:
        kind = "value" if rule.change_threshold is None and rule.value_threshold is not None else "change"
        return Assessment(
            rule=text, metric=rule.metric, slice=rule.slice, verdict=verdict, reason=reason,
            limit=rule.value_threshold,
            method=method_of(
                self._arms.candidate.traits(rule.metric),
                kind="value" if kind == "value" else "change",
                clustered=self._gates.cluster_by is not None,
            ),
        )  # fmt: skip


def _weighed(slices: Sequence[Assessment]) -> list[Assessment]:
    """The slices with the chance that each loses, given the others of its column against the same reference."""
    columns: dict[tuple[str, str | None], list[tuple[Assessment, Judgement]]] = {}
    for each in (each for first in slices for each in (first, *first.rivals)):
        if each.judgement is not None and each.judgement.sd is not None:
            column = (each.slice or "").partition("=")[0]
            columns.setdefault((column, each.baseline), []).append((each, each.judgement))
    least, losses = held_from(len(slices)), dict[int, SliceLoss]()
    for group in columns.values():
        gains = [judged.difference if each.higher_is_better else -judged.difference for each, judged in group]
        variances = [(judged.sd or 0.0) ** 2 for _, judged in group]
        chances, loss = loss_chances(gains, variances, [each.n_items for each, _ in group])
        for (each, _), chance in zip(group, chances.tolist(), strict=True):
            losses[id(each)] = SliceLoss(chance, float(loss), chance > least)

    def weighed(each: Assessment) -> Assessment:
        return replace(each, loss=losses.get(id(each)), rivals=tuple(map(weighed, each.rivals)))

    return list(map(weighed, slices))


def _tolerates_all(judgement: Judgement, traits: MetricTraits, margin: float) -> str | None:
    """Why a tolerated loss compares nothing: both models are so close to the worst mean that it would be met, too."""
    lowest, highest = traits.limits
    worst = lowest if traits.higher_is_better else highest
    if worst is None or judgement.reference is None:
        return None
    if max(abs(judgement.candidate - worst), abs(judgement.reference - worst)) > margin:
        return None
    return (
        f"{traits.name} is {judgement.candidate:.3f} against {judgement.reference:.3f}: with a tolerated loss of "
        f"{margin:g} even a mean of {worst:g} would pass, so this compares nothing; use a metric on which models do "
        "better."
    )


def _marked(each: Assessment, part: Part, *, suffix: str = "") -> Assessment:
    """The assessment and its rivals with this part, and with the suffix after the rule."""
    rivals = tuple(_marked(rival, part, suffix=suffix) for rival in each.rivals)
    return replace(each, rule=f"{each.rule}{suffix}", part=part, rivals=rivals)


def _items(metric: str) -> str:
    return "routed items" if metric == ROUTED_ACCURACY else "items"


def _least(gates: GatesSpec, min_items: int) -> str:
    if min_items > gates.min_items and gates.added_rule is not None:
        return f"the comparison by gates.compare needs {min_items}, whatever gates.min_items is"
    return f"gates.min_items is {min_items}"


def _part_of(rule: GateRule, traits: MetricTraits) -> Part:
    if traits.safety or rule.metric in SAFETY_NAMES:
        return "safety"
    return "baseline" if rule.change_threshold and rule.change_threshold.against == "best_baseline" else "primary"


def _anchor_name(anchor: AnchorSpec) -> str:
    return f"anchor ({'best champion' if anchor.version == 'best' else f'version {anchor.version}'})"
