"""The gate: one finding per declared check, rule, guard and anchor, one verdict over all of them.

Knows nothing of models, MLflow or aliases; `flows/assess.py` calls it last, release acts on PROMOTE alone.

Verdicts, worst first; the decision is the worst finding that decides:

- ERROR: no verdict can be given: a metric is missing or not a number, arms were scored on different items, there is
  nothing to compare with. Never an exception, so that the other findings survive.
- BLOCK: harm is shown: a limit is missed, or the candidate is worse than the reference, with all tests of the gate
  that may block taken together at the confidence (Holm); or a hard limit is passed.
- HOLD: neither can be shown. More items may decide; the reason says how many. Also where the evidence is used up.
- PROMOTE: the rule is met at the confidence. Every such test reads `bound > limit`, which is false for NaN.

Rules, for a metric where higher is better (else all is mirrored, differences stay candidate - reference):

- `value_threshold`: met when the lower bound of the candidate's own value reaches the limit; violated when the upper
  bound is under it, or the value itself beyond `hard_limit`.
- `change_threshold` on the same items. `improve`: met when the lower bound of the difference is above 0. `refresh`:
  met when it is above -margin and the difference itself is above 0, and the lower bound of the difference to the
  anchor, a fixed earlier model, is above the anchor's margin: the margin alone would let a model decay by as much
  each week. Violated when the upper bound is below 0 (anchor: below its margin). No difference on any item is HOLD.
- `against: best_baseline` is the prompting arm with the best mean on those items. Without a champion,
  `if_missing: baseline` turns a champion rule into `improve` on that arm, `error` into ERROR.
- `gates.slices`: no slice of a column may be worse than the champion; too small ones are named, not passed.
- Under `gates.min_items` items (of the slice, where the rule names one) a rule that is met becomes HOLD. Continuous
  metrics need 200 items of which 30 differ, clustered ones 40 clusters: below, the rule is HOLD.

Beside the rules stand the checks of `gates` (contamination and others, see `tasks/assess/checks.py`), each measured by
a step of its own. Findings are told in the order of `schemas.verdicts.PARTS`.

All rules must be met, so PROMOTE needs no correction for their number (intersection-union): the chance to promote a
candidate that violates one of them is at most that rule's own. The formulae are in `tasks/assess/contract.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from schemas.artifacts import EvalSet, GateDecision, Scores
from schemas.evidence import CheckEvidence
from schemas.feedback import LiveQuality
from schemas.gates import GatesSpec
from schemas.metrics import MetricTraits, traits_by_name
from schemas.verdicts import PARTS, EvidenceUse, Finding, Spent, Verdict
from tasks.assess.checks import check_findings
from tasks.assess.decision import summarise, write_decision
from tasks.assess.evidence import ArmScores
from tasks.assess.findings import findings_of, use_findings
from tasks.assess.forgetting import ask_forgetting, divergence_finding
from tasks.assess.judged import ask_judge
from tasks.assess.live import live_findings
from tasks.assess.opponents import Arms
from tasks.assess.questions import Asker

SEVERITY: tuple[Verdict, ...] = ("PROMOTE", "HOLD", "BLOCK", "ERROR")
"""From best to worst."""
NOTHING_SPENT = Spent()


def decide(
    *,
    candidate: Scores,
    champion: Scores | None,
    baselines: tuple[Scores, ...],
    gates: GatesSpec,
    champion_version: str | None = None,
    anchor: Scores | None = None,
    anchor_version: str | None = None,
    items: EvalSet | None = None,
    traits: tuple[MetricTraits, ...] = (),
    spent: Spent = NOTHING_SPENT,
    checks: tuple[CheckEvidence, ...] = (),
    suite_candidate: Scores | None = None,
    suite_base: Scores | None = None,
    live: LiveQuality | None = None,
    out: Path,
) -> GateDecision:
    """Judge every rule and write `decision.json` and `decision.md`; never raises for what the scores hold.

    Args:
        champion: The champion's answers scored on the same items; null when there is none.
        baselines: Scores of the other arms; rules compare with the prompting ones.
        champion_version: Recorded, so that release can refuse when another champion rules by then.
        anchor: The anchor's answers scored on the same items; null where the champion is the anchor.
        items: The held-out items; needed for `gates.cluster_by` alone.
        traits: How metrics are read that are not built in.
        spent: What earlier verdicts have used up.
        checks: What the declared checks measured; one that did not arrive is ERROR.
        live: What agents did with suggestions; null where `feedback` is not declared.
        suite_candidate, suite_base: The answers to the suite of `gates.forgetting`, scored.
    """
    known = traits_by_name(traits)
    arms = Arms(
        candidate=ArmScores(candidate, known),
        champion=None if champion is None else ArmScores(champion, known),
        champion_version=champion_version,
        anchor=None if anchor is None else ArmScores(anchor, known),
        anchor_version=anchor_version,
        baselines={scores.arm: ArmScores(scores, known) for scores in baselines},
    )
    asked = (
        *Asker(arms, gates, items).ask_all(),
        *ask_judge(gates, checks),
        *ask_forgetting(gates, suite_candidate, suite_base),
    )
    use = EvidenceUse(
        look=spent.looks + 1,
        looks_max=gates.looks_max,
        verdict=spent.verdicts + 1,
        budget=None if gates.reuse is None else gates.reuse.budget,
        confidence=1 - gates.alpha,
    )
    unordered: tuple[Finding, ...] = (
        *check_findings(checks, gates),
        *([divergence_finding(checks, gates.forgetting)] if gates.forgetting else []),
        *findings_of(asked, alpha=gates.alpha),
        *live_findings(live),
        *use_findings(use, n_items=candidate.n_items),
    )
    findings = tuple(sorted(unordered, key=lambda finding: PARTS.index(finding.part)))
    verdict = worst(finding.verdict for finding in findings if finding.decides)
    decision = GateDecision(
        root=out,
        verdict=verdict,
        reason=summarise(findings, verdict),
        findings=findings,
        n_items=candidate.n_items,
        champion_version=champion_version,
        best_baseline=next((each.baseline for each in asked if each.baseline is not None), None),
        anchor_version=anchor_version,
        use=use,
    )
    write_decision(decision, out=out)
    return decision


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict over several findings.

    >>> worst(["PROMOTE", "BLOCK", "HOLD"])
    'BLOCK'
    """
    return max(verdicts, key=SEVERITY.index)
