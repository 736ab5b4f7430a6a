"""The gate: one finding per declared rule, one verdict over all of them.

Knows nothing of models, MLflow or aliases; `flows/assess.py` calls it last, release acts on PROMOTE alone.

Verdicts, worst first; the decision is the worst finding:

- ERROR: no verdict can be given: a metric is missing or not a number, arms were scored on different items, there is
  nothing to compare with. Never an exception, so that the other findings survive.
- BLOCK: the rule is violated at the confidence: a limit is missed, or the candidate is worse than the reference.
- HOLD: neither can be shown. More items may decide; the reason says how many.
- PROMOTE: the rule is met at the confidence. Every such test reads `bound > limit`, which is false for NaN.

Rules, for a metric where higher is better (for `LOWER_IS_BETTER` all is mirrored, differences stay candidate -
reference):

- `value_threshold`: met when the lower bound of the candidate's own value reaches the limit; violated when the upper
  bound is under it.
- `change_threshold` on the same items. `improve`: met when the lower bound of the difference is above 0. `refresh`:
  met when it is above -margin and the difference itself is above 0; the margin alone would let a model decay by as
  much each week. Both: violated when the upper bound is below 0. No difference on any item is HOLD: nothing is gained.
- `against: best_baseline` is the prompting arm (zero_shot, few_shot) with the best mean on those items. Without a
  champion, `if_missing: baseline` turns a champion rule into `improve` on that arm, `error` into ERROR.
- Under `gates.min_items` items (of the slice, where the rule names one) a rule that is met becomes HOLD. Continuous
  metrics need 200 items of which 30 differ: below, their bounds are too narrow to trust, and the rule is HOLD.

All rules must be met, so PROMOTE needs no correction for their number (intersection-union): the chance to promote a
candidate that violates one of them is at most that rule's own. The chance to BLOCK a sound candidate grows with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.artifacts import Finding, GateDecision, Scores, Verdict
from schemas.errors import GateError
from schemas.evaluation import ChangeThreshold, GateRule, GatesSpec
from tasks.assess.decision import describe_rule, summarise, write_decision
from tasks.assess.evidence import ArmScores, best_prompting_arm, line_up
from tasks.assess.judge import judge_change, judge_value, method_of

SEVERITY: tuple[Verdict, ...] = ("PROMOTE", "HOLD", "BLOCK", "ERROR")
"""From best to worst."""


def decide(
    *,
    candidate: Scores,
    champion: Scores | None,
    baselines: tuple[Scores, ...],
    gates: GatesSpec,
    champion_version: str | None = None,
    out: Path,
) -> GateDecision:
    """Judge every rule and write `decision.json` and `decision.md`; never raises for what the scores hold.

    Args:
        champion: The champion's answers scored on the same items; null when there is none.
        baselines: Scores of the other arms; rules compare with the prompting ones.
        champion_version: Recorded, so that release can refuse when another champion rules by then.
    """
    arms = _Arms(
        candidate=ArmScores(candidate),
        champion=None if champion is None else ArmScores(champion),
        champion_version=champion_version,
        baselines={scores.arm: ArmScores(scores) for scores in baselines},
    )
    judged = [_judge_rule(rule, arms, gates) for rule in gates.rules]
    findings = tuple(finding for finding, _ in judged)
    verdict = worst(finding.verdict for finding in findings)
    decision = GateDecision(
        root=out,
        verdict=verdict,
        reason=summarise(findings, verdict),
        findings=findings,
        n_items=candidate.n_items,
        champion_version=champion_version,
        best_baseline=next((arm for _, arm in judged if arm is not None), None),
    )
    write_decision(decision, confidence=gates.confidence, out=out)
    return decision


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict over several findings.

    >>> worst(["PROMOTE", "BLOCK", "HOLD"])
    'BLOCK'
    """
    return max(verdicts, key=SEVERITY.index)


@dataclass(frozen=True)
class _Arms:
    candidate: ArmScores
    champion: ArmScores | None
    champion_version: str | None
    baselines: Mapping[str, ArmScores]


@dataclass(frozen=True)
class _Opponent:
    scores: ArmScores
    name: str
    """In rule texts and reasons."""
    baseline: str | None
    """The arm, where the opponent is a baseline."""
    replaced: bool
    """Stands in for a champion that does not exist."""


def _judge_rule(rule: GateRule, arms: _Arms, gates: GatesSpec) -> tuple[Finding, str | None]:
    """The finding, and the baseline arm it compared with."""
    opponent: _Opponent | None = None
    try:
        items = _slice_items(rule, arms.candidate)
        if rule.change_threshold is not None:
            opponent = _find_opponent(rule.change_threshold, arms, gates, metric=rule.metric, items=items)
        finding = _finding(rule, arms.candidate, opponent, gates)
    except GateError as error:
        finding = _unjudged(rule, opponent, "ERROR", f"{error.message}; mend that and run again.")
    return finding, None if opponent is None else opponent.baseline


def _finding(rule: GateRule, candidate: ArmScores, opponent: _Opponent | None, gates: GatesSpec) -> Finding:
    paired = line_up(candidate, opponent.scores if opponent else None, metric=rule.metric, slice_name=rule.slice)
    n_items = paired.n_items
    short = (
        f"{rule.slice or 'the held-out set'} has {n_items} items and gates.min_items is {gates.min_items}; "
        f"{max(0, gates.min_items - n_items):,} more are needed before this rule can be met."
    )
    if n_items == 0:
        return _unjudged(rule, opponent, "HOLD", short)
    change, limit = rule.change_threshold, rule.value_threshold
    if change is not None and opponent is not None and paired.reference is not None:
        judgement = judge_change(
            paired.candidate,
            paired.reference,
            metric=rule.metric,
            margin=change.margin if change.mode == "refresh" and not opponent.replaced else None,
            against=opponent.name,
            confidence=gates.confidence,
        )
    elif limit is not None:
        judgement = judge_value(paired.candidate, metric=rule.metric, limit=limit, confidence=gates.confidence)
    else:
        raise GateError(f"there is nothing to compare {rule.metric} with", code="TG0605")
    held = n_items < gates.min_items and judgement.verdict in ("PROMOTE", "HOLD")
    return Finding(
        rule=_text(rule, opponent),
        metric=rule.metric,
        slice=rule.slice,
        verdict="HOLD" if held else judgement.verdict,
        n_items=n_items,
        candidate=judgement.candidate,
        reference=judgement.reference,
        difference=judgement.difference,
        lower=judgement.lower,
        upper=judgement.upper,
        limit=limit,
        method=judgement.method,
        reason=short if held else judgement.reason,
    )


def _unjudged(rule: GateRule, opponent: _Opponent | None, verdict: Verdict, reason: str) -> Finding:
    return Finding(
        rule=_text(rule, opponent),
        metric=rule.metric,
        slice=rule.slice,
        verdict=verdict,
        n_items=0,
        candidate=None,
        limit=rule.value_threshold,
        method=method_of(rule.metric, kind="value" if rule.change_threshold is None else "change"),
        reason=reason,
    )


def _slice_items(rule: GateRule, candidate: ArmScores) -> frozenset[str] | None:
    """Ids of the rule's slice, null for a rule over all items; a slice without items this time is empty.

    Raises:
        GateError: TG0606, the items were not sliced by that column.
    """
    if rule.slice is None:
        return None
    column = rule.slice.partition("=")[0]
    if not any(name.partition("=")[0] == column for name in candidate.slices):
        raise GateError(f"the items were not sliced by {column}; add it to evaluate.slices", code="TG0606")
    return candidate.slices.get(rule.slice, frozenset())


def _find_opponent(
    change: ChangeThreshold, arms: _Arms, gates: GatesSpec, *, metric: str, items: frozenset[str] | None
) -> _Opponent:
    if change.against == "champion":
        if (arms.champion is None) != (arms.champion_version is None):
            missing = "scores" if arms.champion is None else "version"
            raise GateError(f"there is a champion, but its {missing} did not arrive at the gate", code="TG0605")
        if arms.champion is not None:
            return _Opponent(arms.champion, f"champion (version {arms.champion_version})", None, False)
        if gates.if_missing == "error":
            raise GateError("there is no champion, and gates.if_missing is error", code="TG0605")
    best = best_prompting_arm(arms.baselines, arms.candidate, metric=metric, items=items)
    return _Opponent(best, f"best_baseline ({best.arm})", best.arm, replaced=change.against == "champion")


def _text(rule: GateRule, opponent: _Opponent | None) -> str:
    if opponent is None:
        return describe_rule(rule)
    return describe_rule(rule, against=opponent.name, replaced=opponent.replaced)
