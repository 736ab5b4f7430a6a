"""The gate: one finding per declared check, rule, guard and anchor, and one verdict over all of them.

docs/reference/gates.md has the rules and verdicts, `tasks/assess/contract.py` the formulas. What the code relies on:

- Missing or unequal measurements are a finding with ERROR, never an exception, so that the other findings are kept.
- Every test that lets a candidate pass is `bound > limit`, which is false for NaN.
- Differences are always candidate - reference; where lower is better both are mirrored.
- All rules must be met, so PROMOTE needs no correction for their number (intersection-union); all tests that may block
  share the error probability (Holm), and those that can show nothing leave theirs to the others (Tarone).

Findings are in the order of `schemas.verdicts.PARTS`; the verdict is the worst finding that decides.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from pydantic import Field

import tasks.assess.checks  # noqa: F401  registers them
from schemas.artifacts import ArtifactGroup, CheckEvidence, EvalSet, GateDecision, InterimAnswers, LabelSources, Scores
from schemas.checks import JudgeSpec
from schemas.counted import counted
from schemas.feedback import Acceptance, LiveQuality
from schemas.gates import GatesSpec, PowerSpec
from schemas.metrics import RIGHT, MetricTraits, traits_by_name, traits_of
from schemas.spec import Spec
from schemas.verdicts import PARTS, EvidenceUse, Finding, InterimLook, InterimUse, UsedBudget, Verdict
from tasks.assess.cheaper import find_cheaper
from tasks.assess.check import check_findings
from tasks.assess.contract import BLOCK, HOLD, PROMOTE, settle, testable
from tasks.assess.decision import STOPPED, remark_on_length, summarise, write_decision
from tasks.assess.diagnosis import PastFacts, diagnose
from tasks.assess.evidence import Arms, ArmScores, incumbents
from tasks.assess.few_examples import hold_blocked
from tasks.assess.forgetting import assess_forgetting, divergence_finding
from tasks.assess.incumbent import incumbent_findings
from tasks.assess.interim import HARM_AT_STOP, stops
from tasks.assess.items import extra_items
from tasks.assess.judge import NO_PLAN, ChangeTest, Judgement, judge_change
from tasks.assess.looks import is_spent, last_levels, levels_of
from tasks.assess.measured_checks import UNKNOWN_EXAMPLES
from tasks.assess.metric_check import metric_findings
from tasks.assess.pass_chance import passes_of
from tasks.assess.power import paired_items_needed, smallest_difference, smallest_gain
from tasks.assess.questions import Assessment, assess_rules, look_at_rules
from tasks.assess.wrong_references import share_of_labels, share_of_raters, warn_of
from tasks.step import as_step

SEVERITY: tuple[Verdict, ...] = get_args(Verdict)
"""From best to worst."""
_VERDICTS: dict[int, Verdict] = {PROMOTE: "PROMOTE", HOLD: "HOLD", BLOCK: "BLOCK"}
MAX_UNREADABLE = 0.1
"""Share of unreadable replies above which the judge is not used."""
TOP_UP_LOSS, TOP_UP_POWER = 0.15, 0.93
"""The loss that a slice with topped up items shows nearly always, as a share of its items."""
RULE = "the judge is not shown to prefer the reference answers"
METRIC = "acceptance"


class GateContext(Spec):
    """What the gate uses besides scores and evidence."""

    champion_version: str | None = None
    """Recorded, so that release can refuse if the champion has changed since."""
    anchor_version: str | None = None
    endpoint: str = ""
    """Name of the model of the arm endpoint, or of the file with its answers."""
    endpoint_asked: bool = False
    """This run asked it, so that how it answered is known, and is judged where a rule compares with it."""
    traits: tuple[MetricTraits, ...] = ()
    """Of metrics that are not built in."""
    used_budget: UsedBudget = UsedBudget()
    """The part of the budgets that earlier verdicts used."""
    declared_comparison: tuple[str, ...] = ()
    """Declared metrics that alone compare with the champion; `tasks/assess/metric_check.py` has checked them."""
    live: LiveQuality | None = None
    """What agents did with suggestions; None if `feedback` is not declared."""
    past: PastFacts = PastFacts()
    rater_pairs: tuple[int, int] = (0, 0)
    """Pairs of people's labels of one answer, and those that differ."""
    n_corrected: int = Field(default=0, ge=0)
    """Items that people have corrected."""


NO_CONTEXT = GateContext()


@dataclass(frozen=True)
class JudgedArms(ArtifactGroup):
    """What a verdict is based on, all on the same items."""

    candidate: Scores
    champion: Scores | None = None
    """None without a champion."""
    baselines: tuple[Scores, ...] = ()
    """The other arms; rules compare with the prompting ones."""
    anchor: Scores | None = None
    """None if the champion is the anchor."""
    items: EvalSet | None = None
    """The held-out items; only needed for `gates.cluster_by` and `gates.slices.top_up`."""
    checks: tuple[CheckEvidence, ...] = ()
    """What the declared checks measured; a missing one is ERROR."""
    suite: tuple[Scores, ...] = ()
    """Scores of the candidate and its base on the suite of `gates.forgetting`."""
    interim: InterimAnswers | None = None
    """What the looks of `gates.interim` saw; None if it is not declared."""
    labels: LabelSources | None = None
    """Files and weeks by how many of their labels are suspect; None without a champion."""
    past: tuple[Scores, ...] = ()
    """The champion's scores at earlier verdicts, its own first."""


@as_step("gate", libraries=("numpy", "scipy", "pyarrow"))
def decide(out: Path, *, judged: JudgedArms, gates: GatesSpec, context: GateContext = NO_CONTEXT) -> GateDecision:
    """Judge every rule and write `decision.json` and `decision.md`; bad scores are findings, not exceptions.

    If the candidate was stopped before the last item, all arms are judged on the items that it answered.
    """
    traits = traits_by_name(context.traits)
    looked = None if judged.interim is None else judged.interim.use
    stopped = looked is not None and looked.stopped
    if stopped:
        gates = at_stop(gates)
    arms = arms_of(
        judged.candidate,
        champion=judged.champion,
        anchor=judged.anchor,
        baselines=judged.baselines,
        context=context,
        as_candidate=stopped,
    )
    extra = frozenset[str]() if judged.items is None else extra_items(judged.items)
    if stopped:
        extra &= arms.candidate.item_ids
    n_items = judged.candidate.n_items - len(extra)
    levels = levels_of(gates, context.used_budget, n_items=judged.candidate.n_items)
    assessed = (
        *assess_rules(arms, gates, judged.items, alpha=levels.met, extra=extra),
        *assess_judge(gates, judged.checks, alpha=levels.met),
        *assess_forgetting(gates, judged.suite, alpha=levels.met),
    )
    use = EvidenceUse(
        look=context.used_budget.looks + 1,
        looks_max=gates.looks.max,
        verdict=context.used_budget.verdicts + 1,
        budget=None if gates.reuse is None else gates.reuse.budget,
        confidence=1 - levels.met,
        n_corrected=context.n_corrected,
        n_seen=context.used_budget.n_seen,
        edited=context.used_budget.edited,
        changed=context.used_budget.changed,
        is_spent=is_spent(gates, context.used_budget),
    )
    unordered: tuple[Finding, ...] = (
        *check_findings(judged.checks, gates),
        *([divergence_finding(judged.checks, gates.forgetting)] if gates.forgetting else []),
        *findings_of(
            assessed, alpha=levels.harm, planned=gates.power, top_up=gates.slices.top_up if gates.slices else 0
        ),
        *metric_findings(
            judged.checks, gates, metrics=context.declared_comparison, known=traits_by_name(context.traits)
        ),
        *(incumbent_findings(judged.checks, gates, context.endpoint) if context.endpoint_asked else ()),
        *live_findings(context.live),
        *use_findings(use, n_items=n_items),
        *stop_findings(looked, gates),
        *uncompared_findings(gates, n_items=n_items),
    )
    held = hold_blocked(unordered, judged.checks)
    findings = tuple(sorted(held, key=lambda finding: PARTS.index(finding.part)))
    verdict = worst(finding.verdict for finding in findings if finding.decides)
    remark = remark_on_length(judged.candidate, verdict)
    cheaper = (
        ""
        if verdict == "ERROR"
        else find_cheaper(arms, findings, confidence=gates.confidence, without=extra, replaced=incumbents(gates))
    )
    references = "" if verdict == "ERROR" else warn_of_references(assessed, judged.labels, context.rater_pairs)
    unknown = any(each.part == "contamination" and not each.decides for each in findings)
    doubt = f"{UNKNOWN_EXAMPLES[0].upper()}{UNKNOWN_EXAMPLES[1:]}." if unknown else ""
    diagnosis = None
    if judged.champion is not None:
        now, *then = (ArmScores(scores, traits) for scores in (judged.champion, *judged.past))
        diagnosis = diagnose(now, then, judged.labels, gates, facts=context.past, without=extra)
    decision = GateDecision(
        root=out,
        verdict=verdict,
        reason=" ".join(
            filter(
                None,
                (summarise(findings, verdict, use, remark=remark, diagnosis=diagnosis), cheaper, references, doubt),
            )
        ),
        findings=findings,
        n_items=n_items,
        champion_version=context.champion_version,
        best_baseline=next((each.baseline for each in assessed if each.baseline is not None), None),
        anchor_version=context.anchor_version,
        use=use,
        remark=remark,
        cheaper=cheaper,
        references=references,
        interim=looked,
        diagnosis=diagnosis,
    )
    write_decision(decision, out=out)
    return decision


def arms_of(
    candidate: Scores,
    *,
    champion: Scores | None,
    anchor: Scores | None,
    baselines: tuple[Scores, ...],
    context: GateContext,
    as_candidate: bool,
) -> Arms:
    """Return the arms of a decision.

    Args:
        as_candidate: Only the items that the candidate answered, of all arms.
    """
    known = traits_by_name(context.traits)
    ours = ArmScores(candidate, known)

    def other(scores: Scores) -> ArmScores:
        return ArmScores(scores, known, of=ours if as_candidate else None)

    return Arms(
        candidate=ours,
        champion=None if champion is None else other(champion),
        champion_version=context.champion_version,
        anchor=None if anchor is None else other(anchor),
        anchor_version=context.anchor_version,
        baselines={scores.arm: other(scores) for scores in baselines},
        endpoint=context.endpoint,
    )


def at_stop(gates: GatesSpec) -> GatesSpec:
    """Return the gates of a run that stopped: with a higher confidence, since runs that look bad are those that stop.

    >>> from schemas.gates import GateRule
    >>> round(at_stop(GatesSpec(rules=(GateRule(metric="exact", value_threshold=0.5),))).alpha, 4)
    0.0325
    """
    return gates.model_copy(update={"confidence": 1 - HARM_AT_STOP * (1 - gates.confidence)})


def look(arms: Arms, gates: GatesSpec, items: EvalSet) -> InterimLook | None:
    """Return what the items so far say of all `items`; None if no chance can be computed.

    A candidate that may be judged on further sets can still pass there, so that the last of its looks is what counts.
    """
    spec, extra = gates.interim, extra_items(items)
    alpha, n_planned = last_levels(gates).met, items.n_items - len(extra)
    judged = [
        (now, start, each.rule)
        for each in look_at_rules(arms, gates, items, alpha=alpha, extra=extra, n_planned=n_planned)
        if each.chances is not None
        for start, now in (each.chances,)
        if math.isfinite(start) and math.isfinite(now)
    ]
    if spec is None or not judged:
        return None
    stopping = [each for each in judged if stops(each[0], each[1], stop_below=spec.stop_below, power=gates.power.power)]
    now, _, rule = min(stopping or judged)
    return InterimLook(n_items=len(arms.candidate.item_ids), rule=rule, chance=now, stopped=bool(stopping))


def stop_findings(looked: InterimUse | None, gates: GatesSpec) -> Iterator[Finding]:
    """Yield a HOLD if the run stopped before the last item: nothing is promoted on a part of them."""
    if looked is None or not looked.stopped:
        return
    last = looked.looks[-1]
    left = looked.n_planned - looked.n_items
    yield Finding(
        rule=f"all {looked.n_planned:,} planned items are answered", metric=STOPPED, verdict="HOLD",
        n_items=looked.n_items, candidate=None, method="conditional_power", part="use",
        reason=f"stopped after {looked.n_items:,} of {looked.n_planned:,} items, since the chance to meet "
        f"`{last.rule}` was {100 * last.chance:.2g} %, even with an effect of {gates.power.effect:g} from then on; "
        f"{left:,} items are left unanswered, and `gates.interim: null` answers them.",
    )  # fmt: skip


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several verdicts.

    >>> worst(["PROMOTE", "BLOCK", "HOLD"])
    'BLOCK'
    """
    return max(verdicts, key=SEVERITY.index)


def findings_of(
    assessed: Sequence[Assessment], *, alpha: float, planned: PowerSpec = NO_PLAN, top_up: int = 0
) -> Iterator[Finding]:
    """Yield a finding for each, in order.

    Args:
        alpha: Error probability of all tests that may block, together.
        planned: The power with which slices say what they can show.
        top_up: Items up to which small slices were topped up.
    """
    everyone = [each for first in assessed for each in (first, *first.rivals)]
    judged = (each.judgement for each in everyone if each.judgement is not None)
    tested = [each for each in judged if each.lower is not None]
    settled: dict[int, Verdict] = {}
    unable: set[int] = set()
    n_tests = len(tested)
    if tested:
        met = np.array([judgement.met for judgement in tested], np.bool_)
        p_harm = np.array([judgement.p_harm for judgement in tested], np.float64)
        p_least = np.array([judgement.p_least for judgement in tested], np.float64)
        codes = settle(met, p_harm, alpha=alpha, p_least=p_least).tolist()
        settled = {id(judgement): _VERDICTS[code] for judgement, code in zip(tested, codes, strict=True)}
        able = testable(p_least, alpha=alpha).tolist()
        unable = {id(judgement) for judgement, can in zip(tested, able, strict=True) if not can}
        n_tests -= len(unable)
    detects = _Detects(everyone, alpha / max(1, n_tests), planned.power, top_up)
    for first in assessed:
        found = [
            _slice_finding(
                _finding(each, settled, n_tests=n_tests), each, detects, can=id(each.judgement) not in unable
            )
            if each.part == "slices"
            else _finding(each, settled, n_tests=n_tests)
            for each in (first, *first.rivals)
        ]
        yield _of_all_arms(found)


def _of_all_arms(found: Sequence[Finding]) -> Finding:
    """The finding with the worst verdict; if that is met, it says against how many arms."""
    shown = max(found, key=lambda each: (SEVERITY.index(each.verdict), each.decides))
    if len(found) == 1 or shown.verdict != "PROMOTE":
        return shown
    others = "the other arm" if len(found) == 2 else f"each of the {len(found) - 1} other arms"
    return shown.model_copy(update={"reason": f"{shown.reason.removesuffix('.')}; the same holds against {others}."})


class _Detects:
    """What slices can show, from the disagreement in each and on all of its metric, whichever is more."""

    def __init__(self, everyone: Sequence[Assessment], alpha: float, power: float, top_up: int) -> None:
        judged = [(each.n_items, each.judgement) for each in everyone if each.part == "slices" and each.judgement]
        differing = sum((judgement.won or 0) + (judgement.lost or 0) for _, judgement in judged)
        self._discordance = max(differing, 1) / max(sum(n for n, _ in judged), 1)
        self.power, self._confidence, self._top_up = power, 1 - alpha, top_up

    def smallest_loss(self, each: Assessment) -> float | None:
        """The smallest loss that the slice would probably show."""
        judgement, level = each.judgement, {"confidence": self._confidence, "power": self.power}
        if judgement is None or judgement.sd is None or judgement.lower is None:
            return None
        if judgement.method == "tango":
            return smallest_difference(each.n_items, discordance=self._in(each, judgement), **level)
        return smallest_gain(each.n_items, variance=judgement.sd**2, paired=False, **level)

    def describe(self, each: Assessment) -> str:
        """Say which loss the slice would show, and how many items it needs to keep what `top_up` promises."""
        smallest, judgement = self.smallest_loss(each), each.judgement
        if smallest is None:
            shows = "so few items can show no loss on average"
        else:
            shows = f"it would probably show a loss of {smallest:.3f}"
        if not self._top_up or judgement is None or judgement.method != "tango":
            return shows
        needed = self.items_for(each, TOP_UP_LOSS, power=TOP_UP_POWER)
        if needed is None or needed <= each.n_items:
            return shows
        differ = 100 * self._in(each, judgement)
        return (
            f"{shows}; to show one of {TOP_UP_LOSS:g} nearly always it takes {needed:,} items, as models differ on "
            f"{differ:.0f} % of them (gates.slices.top_up: {needed})"
        )

    def items_for(self, each: Assessment, loss: float, *, power: float) -> int | None:
        """Items of the slice with which a true loss is shown; None if no number is enough, or it is not known."""
        judgement, level = each.judgement, {"confidence": self._confidence, "power": power}
        if judgement is None or judgement.sd is None or judgement.method != "tango":
            return None
        return paired_items_needed(loss, discordance=self._in(each, judgement), **level)

    def _in(self, each: Assessment, judgement: Judgement) -> float:
        return max(self._discordance, ((judgement.won or 0) + (judgement.lost or 0)) / max(1, each.n_items))


def _slice_finding(finding: Finding, each: Assessment, detects: _Detects, *, can: bool) -> Finding:
    """Say what the slice could have shown. A loss that is not shown, but probable given the other slices, holds."""
    if each.judgement is None or finding.verdict != "PROMOTE":
        return finding
    smallest, shows, loss = detects.smallest_loss(each), detects.describe(each), each.loss
    reason = f"{finding.reason.removesuffix('.')}; {shows}."
    if loss is not None and loss.is_probable:
        needed = detects.items_for(each, abs(each.judgement.difference), power=detects.power)
        more = None if needed is None else max(0, needed - each.n_items)
        advice = "" if not more else f"; about {more:,} more items of it would show such a loss (gates.slices.top_up)"
        reason = (
            f"{finding.reason.removesuffix('.')}; this may be chance, but given all slices a loss of more than "
            f"{loss.least:.3f} is probable ({100 * loss.chance:.0f} %){advice}."
        )
        return finding.model_copy(
            update={"verdict": "HOLD", "reason": reason, "smallest_loss": smallest, "more_items": more}
        )
    if not can and (finding.lost or 0) > (finding.won or 0):
        reason = (
            f"lost {finding.lost} and won {finding.won} of {finding.n_items} items, which are too few to show harm "
            f"among all tests of this gate; {shows}; gates.slices.top_up draws more items for it."
        )
        return finding.model_copy(
            update={"verdict": "HOLD", "decides": False, "reason": reason, "smallest_loss": smallest}
        )
    return finding.model_copy(update={"reason": reason, "smallest_loss": smallest})


def use_findings(use: EvidenceUse, *, n_items: int) -> Iterator[Finding]:
    """Yield a HOLD for a candidate, and one for items, that were used in too many verdicts."""
    if not use.look <= use.looks_max or use.is_spent:
        n_before = use.look - 1
        before = f"this candidate was judged {counted(n_before, 'time')} before"
        if use.edited:
            some = "" if use.edited == n_before else f", {use.edited} of them"
            before += f"{some} on these items by other rules (an edit after HOLD or BLOCK counts as a look)"
        most = f"gates.looks.max is {use.looks_max}"
        if use.look <= use.looks_max:
            most = "that spent the whole error probability, since gates.looks.max was lower then"
        yield Finding(
            rule=f"a candidate is judged at most {counted(use.looks_max, 'time')}", metric="looks", verdict="HOLD",
            n_items=n_items, candidate=None, method="count",
            part="use",
            reason=f"{before}, and {most}; only another candidate can pass.",
        )  # fmt: skip
    if use.budget is not None and not use.verdict <= use.budget:
        yield Finding(
            rule=f"the same items judge at most {use.budget} candidates", metric="reuse", verdict="HOLD",
            n_items=n_items, candidate=None, method="count",
            part="use",
            reason=f"these items have judged {use.verdict - 1} candidates, and gates.reuse.budget is {use.budget}; "
            "fresh tickets in the test split are needed.",
        )  # fmt: skip


def uncompared_findings(gates: GatesSpec, *, n_items: int) -> Iterator[Finding]:
    """Yield one if the comparison with the champion is off."""
    if gates.compare.off is not None:
        yield Finding(
            rule="the candidate is compared with the champion", metric="compare", verdict="UNCOMPARED",
            n_items=n_items, candidate=None, method="none", part="use",
            reason=f"the candidate is not compared with the champion (gates.compare is off: {gates.compare.off}); "
            "`tunegate model promote --accept-uncompared` makes it champion.",
        )  # fmt: skip


def _finding(assessed: Assessment, settled: dict[int, Verdict], *, n_tests: int) -> Finding:
    judgement = assessed.judgement
    if judgement is None:
        return Finding(
            rule=assessed.rule, metric=assessed.metric, slice=assessed.slice, verdict=assessed.verdict,
            n_items=assessed.n_items, candidate=None, limit=assessed.limit, method=assessed.method,
            reason=assessed.reason, part=assessed.part, decides=assessed.decides,
            more_items=assessed.missing or None,
        )  # fmt: skip
    verdict, reason = _settled(judgement, settled.get(id(judgement), judgement.verdict), n_tests)
    if assessed.short and verdict in ("PROMOTE", "HOLD"):
        # With too few items the figures come first: a rule that is far from met is not nearly there.
        worth = judgement.if_not_blocked if judgement.verdict == "BLOCK" else judgement.reason.partition(", but ")[0]
        verdict = "HOLD"
        reason = (
            f"{worth.partition('; ')[0].removesuffix('.')}; {assessed.reason}" if assessed.missing else assessed.reason
        )
    more = max(judgement.more_items or 0, assessed.missing) or judgement.more_items
    return Finding(
        rule=assessed.rule,
        metric=assessed.metric,
        slice=assessed.slice,
        verdict=verdict,
        n_items=assessed.n_items,
        candidate=judgement.candidate,
        reference=judgement.reference,
        difference=judgement.difference,
        lower=judgement.lower,
        upper=judgement.upper,
        limit=assessed.limit,
        method=judgement.method,
        reason=reason,
        won=judgement.won,
        lost=judgement.lost,
        p_harm=judgement.p_harm if id(judgement) in settled else None,
        higher_is_better=assessed.higher_is_better,
        part=assessed.part,
        decides=assessed.decides,
        more_items=more if verdict == "HOLD" else None,
        passes=None if assessed.compared is None else passes_of(assessed.compared, in_points=assessed.in_points),
    )


def _settled(judgement: Judgement, verdict: Verdict, n_tests: int) -> tuple[Verdict, str]:
    """The verdict among all tests, and its reason, which differs if the verdict is milder than the rule's own."""
    if judgement.verdict == "BLOCK" and verdict != "BLOCK":
        tests = f"the {n_tests} tests" if n_tests > 1 else "all tests"
        return verdict, (
            f"{judgement.if_not_blocked}, but that may be chance among {tests} of this gate (Holm); "
            "more items would decide."
        )
    return verdict, judgement.reason


def assess_judge(gates: GatesSpec, evidence: Sequence[CheckEvidence], *, alpha: float) -> Iterator[Assessment]:
    """Judge whether the judge model prefers the reference's answers; yields nothing if not declared.

    Args:
        alpha: Error probability of the guard.
    """
    spec = gates.judge
    if spec is None:
        return
    found = [each for each in evidence if each.check == "judge"]
    values = found[0].values if len(found) == 1 else {}
    counts = [_count(values.get(name)) for name in ("won", "lost", "tied", "unreadable", "labels")]
    same = found and found[0].n_items == 0 and (_count(values.get("identical")) or 0) > 0
    if same:
        reason = f"all {values['identical']:.0f} pairs of answers are identical: nothing was compared."
        yield _unjudged("PROMOTE", reason, decides=True)
        return
    if None in counts or not found or found[0].n_items < 1:
        yield _unjudged("ERROR", "the judge did not run, or its choices are not counts; run again.", decides=True)
        return
    won, lost, tied, unreadable, labels = (count or 0 for count in counts)
    n = found[0].n_items
    counted = f"better {won}, worse {lost}, undecided or dependent on the order {tied} of {n} that differ"
    if unreadable > MAX_UNREADABLE * (n + labels):
        yield _unjudged(
            "ERROR", f"{unreadable} of {n + labels} replies of the judge are neither A, B nor TIE.", decides=True
        )
        return
    doubt = _doubt(spec, labels, values.get("kappa"), values.get("kappa_lower"))
    if doubt:
        yield _unjudged("HOLD", f"{counted}; only reported, since {doubt}.", decides=False, n_items=n)
        return
    gained, worse = np.zeros(n), np.zeros(n)
    gained[:won] = worse[won : won + lost] = 1.0
    test = ChangeTest(traits_of("judge"), 1 - alpha, "the reference answers", kind="guard")
    judgement = judge_change(gained, worse, test)
    yield Assessment(
        rule=RULE, metric="judge", slice=None, method=judgement.method, n_items=n, judgement=judgement, part="judge"
    )


def _doubt(spec: JudgeSpec, labels: int, kappa: float | None, lower: float | None) -> str:
    """Why it may not decide; empty if it may."""
    if spec.labels is None:
        return "it was not compared with people's choices (gates.judge.labels)"
    if labels < spec.min_labels:
        return f"it was compared with {labels} choices of people, and {spec.min_labels} are needed"
    if lower is None or not lower >= spec.min_kappa:
        shown, bound = ("not a number" if not _is_number(each) else f"{each:.2f}" for each in (kappa, lower))
        return (
            f"its kappa with people's choices is {shown}, at least {bound} at 95 % confidence, and {spec.min_kappa:g} "
            "is needed; more labels narrow it"
        )
    return ""


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _unjudged(verdict: Verdict, reason: str, *, decides: bool, n_items: int = 0) -> Assessment:
    return Assessment(
        rule=RULE, metric="judge", slice=None, method="tango", n_items=n_items, verdict=verdict, reason=reason,
        decides=decides, part="judge",
    )  # fmt: skip


def _count(value: float | None) -> int | None:
    return int(value) if value is not None and math.isfinite(value) and value >= 0 else None


def warn_of_references(
    assessed: Sequence[Assessment], labels: LabelSources | None, rater_pairs: tuple[int, int]
) -> str:
    """Warn of a comparison whose margin tolerates more than it says, since references are wrong; empty if none does."""
    of_labels = None if labels is None else share_of_labels(labels.n_sure, labels.n_contradicted)
    checked = () if labels is None else ("exact", f"field_{labels.field}")
    by_people = [(each.rule, each.compared) for each in assessed if each.compared and each.metric == RIGHT]
    by_label = [(each.rule, each.compared) for each in assessed if each.compared and each.metric in checked]
    return warn_of(by_people, share_of_raters(*rater_pairs)) or warn_of(by_label, of_labels)


def live_findings(live: LiveQuality | None) -> Iterator[Finding]:
    """Yield a finding per version: the candidate's, the champion's, then the others; none if not declared."""
    if live is None:
        return
    first = {live.candidate: 0, live.champion: 1}
    for found in sorted(live.versions, key=lambda each: (first.get(each.version, 2), -int(each.version))):
        yield _live_finding(live, found)


def _live_finding(live: LiveQuality, found: Acceptance) -> Finding:
    spec, is_candidate = live.spec, found.version == live.candidate
    floor = spec.min_acceptance
    who = (
        "the candidate" if is_candidate else "the champion" if found.version == live.champion else "an earlier version"
    )
    counted = f"agents accepted {found.n_accepted} of {found.n} suggestions of v{found.version} ({who})"
    decides = is_candidate and floor is not None and found.n >= spec.min_suggestions
    verdict: Verdict = "PROMOTE"
    if not decides or floor is None:
        verdict, reason = "HOLD", f"{counted}; only reported."
        if is_candidate and floor is not None:
            reason = f"{counted}; only reported: fewer than feedback.min_suggestions ({spec.min_suggestions})."
    elif not found.upper >= floor:
        verdict, reason = "BLOCK", f"{counted}: less than {floor:g} at the confidence; only another candidate can pass."
    else:
        reason = f"{counted}: not shown to be less than {floor:g}."
    return Finding(
        rule=f"live acceptance of v{found.version}" + (f" at least {floor:g}" if decides else ""), metric=METRIC,
        verdict=verdict, n_items=found.n, candidate=found.rate, lower=found.lower, upper=found.upper,
        limit=floor if decides else None, difference=found.rate - floor if decides and floor is not None else None,
        method="clopper_pearson", reason=reason, part="live", decides=decides,
    )  # fmt: skip
