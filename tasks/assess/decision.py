"""Texts and files of a gate decision: rules, a one-sentence summary, `decision.json` and `decision.md`.

Decides nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from schemas.artifacts import GateDecision, Scores
from schemas.counted import counted
from schemas.diagnosis import Diagnosis
from schemas.gates import GateRule
from schemas.verdicts import EvidenceUse, Finding, Verdict
from tasks.storage.files import write_atomic, write_json
from tasks.tickets.visible import literal

CUT = 0.1
"""Share of cut replies from which on the reason names it."""
STOPPED = "interim"
"""Metric of the finding that a run stopped before the last item."""
_OUTCOMES: dict[Verdict, str] = {
    "PROMOTE": "met",
    "UNCOMPARED": "not compared",
    "HOLD": "without enough evidence",
    "BLOCK": "violated",
    "ERROR": "without a sound measurement",
}


def describe_rule(rule: GateRule, *, higher_is_better: bool = True, against: str = "", replaced: bool = False) -> str:
    """Describe the rule.

    Args:
        against: The reference of a change rule, with its arm or version.
        replaced: There is no champion, so the rule compares with the baseline instead.

    >>> describe_rule(GateRule(metric="exact", value_threshold=0.5))
    'exact at least 0.5'
    """
    where = f" in {_on_one_line(rule.slice)}" if rule.slice else ""
    change = rule.change_threshold
    if change is None:
        bound = "at least" if higher_is_better else "at most"
        return f"{rule.metric}{where} {bound} {rule.value_threshold:g}"
    against = against or change.against
    if change.mode == "no_worse":
        text = f"{rule.metric}{where} is at most {change.margin:g} worse than {against} at the confidence"
    elif change.mode == "improve" or replaced:
        text = f"{rule.metric}{where} improves on {against}"
    else:
        text = f"{rule.metric}{where} is better than {against}, and at most {change.margin:g} worse at the confidence"
    return f"{text}, as there is no champion" if replaced else text


def describe_anchor(rule: GateRule, *, margin: float, against: str) -> str:
    """Describe the anchor of a rule of mode refresh."""
    where = f" in {_on_one_line(rule.slice)}" if rule.slice else ""
    return f"{rule.metric}{where} is at most {margin:g} worse than {against} at the confidence"


def surpassed(decision: GateDecision) -> str:
    """Return the version of the anchor, or else of the champion, that the candidate is shown to be better than.

    Empty unless it is better at the confidence by one metric over all items, and on average worse by none.
    """
    version = decision.anchor_version or decision.champion_version or ""
    arm = "champion" if version == decision.champion_version else "anchor"
    shown = []
    for finding in decision.findings:
        if finding.slice is None and finding.difference is not None and f"{arm} (version {version})" in finding.rule:
            sign, bound = (1, finding.lower) if finding.higher_is_better else (-1, finding.upper)
            if sign * finding.difference < 0:
                return ""
            shown.append(bound is not None and sign * bound > 0)
    return version if any(shown) else ""


def describe_guard(metric: str, where: str, against: str) -> str:
    """Describe the guard of one slice."""
    return f"{metric} in {_on_one_line(where)} is not shown to be worse than {against}"


def _on_one_line(slice_name: str) -> str:
    """The slice for a rule's text: a label with a line break must not begin a line that reads like a verdict."""
    return " ".join(slice_name.split())


def summarise(
    findings: Sequence[Finding],
    verdict: Verdict,
    use: EvidenceUse | None = None,
    *,
    remark: str = "",
    diagnosis: Diagnosis | None = None,
) -> str:
    """Say how many rules led to the verdict, and why the first of them did; of HOLD, that which needs most items.

    Args:
        remark: Comes last.
        diagnosis: What it finds in data and labels comes first, and last where the rules are met: more items like
            those that are wrong decide nothing.
    """
    text = " ".join(
        filter(None, [_of_rules(findings, verdict, use, remark=remark), describe_passes(findings, verdict)])
    )
    causes = "; ".join(diagnosis.causes()) if diagnosis is not None else ""
    if diagnosis is None or not causes:
        return text
    remedy = f": {diagnosis.remedy()}" if diagnosis.remedy() else ""
    summary = f"{causes[0].upper()}{causes[1:]}{remedy}."
    return f"{text} {summary}" if verdict in ("PROMOTE", "UNCOMPARED") else f"{summary} {text}"


def _of_rules(findings: Sequence[Finding], verdict: Verdict, use: EvidenceUse | None, *, remark: str) -> str:
    deciding = [finding for finding in findings if finding.decides]
    decisive = [finding for finding in deciding if finding.verdict == verdict]
    small = sum(finding.part == "slices" and not finding.decides for finding in findings)
    unjudged = f" {counted(small, 'slice that lost is', 'slices that lost are')} too small to be judged." * bool(small)
    n_checks = sum(finding.is_check for finding in deciding)
    if verdict == "PROMOTE":
        compared = next((f": {finding.reason.removesuffix('.')}" for finding in deciding if finding.passes), "")
        return f"{_met(len(deciding) - n_checks, n_checks)}{compared}.{unjudged}"
    # Where a run stopped, that is the reason: the others judge only a part of the items.
    first = next((finding for finding in decisive if finding.metric == STOPPED), decisive[0])
    if verdict == "UNCOMPARED":
        if len(deciding) == 1:
            return f"{first.reason[0].upper()}{first.reason[1:]}{unjudged}"
        return f"{_met(len(deciding) - n_checks - 1, n_checks)}, and {first.reason}{unjudged}"
    all_of_them = counted(len(deciding), "check", "rules and checks") if n_checks else counted(len(deciding), "rule")
    looks = ""
    if verdict == "HOLD" and not any(finding.part == "use" for finding in decisive):
        first = max(decisive, key=lambda finding: finding.more_items or 0)  # the first, if none says a number
        looks = _looks_left(use) if first.more_items else ""
    last = f"{looks}{unjudged}" + (f" {remark}" if remark else "")
    return f"{len(decisive)} of {all_of_them} {_OUTCOMES[verdict]}; {first.rule}: {first.reason}{last}"


def describe_passes(findings: Sequence[Finding], verdict: Verdict) -> str:
    """Say how often the first comparison passes good and bad candidates; empty without one."""
    passes = next((finding.passes for finding in findings if finding.decides and finding.passes), None)
    return f"{passes.sentence()}." if passes is not None and verdict != "ERROR" else ""


def _met(n_rules: int, n_checks: int) -> str:
    """`All 7 rules and 2 checks are met`, `1 rule is met`."""
    parts = [counted(n, one) for n, one in ((n_rules, "rule"), (n_checks, "check")) if n]
    are = "is" if n_rules + n_checks == 1 else "are"
    return f"{'All ' * ((n_rules or n_checks) > 1)}{' and '.join(parts)} {are} met"


def _looks_left(use: EvidenceUse | None) -> str:
    """Whether more items may judge this candidate again."""
    if use is None:
        return ""
    left = use.looks_max - use.look
    if left <= 0:
        return " No look at this candidate is left (gates.looks.max): more items can only judge another."
    return f" {counted(left, 'look at this candidate is', 'looks at this candidate are')} left."


def remark_on_length(scores: Scores, verdict: Verdict) -> str:
    """Name the share of held-out replies that are too long for an answer, if that may be why; empty if not.

    A candidate that learned to write them is cut, too, and not by its own fault.
    """
    share = (scores.n_replies_cut or 0) / max(1, scores.n_items)
    if share <= CUT or verdict not in ("BLOCK", "HOLD"):
        return ""
    return f"{share:.0%} of the held-out replies are longer than evaluate.max_new_tokens: answers like them are cut."


def write_decision(decision: GateDecision, *, out: Path) -> None:
    """Write `decision.json` (all fields but root and digest) and `decision.md` (the same as a table)."""
    write_json(out / "decision.json", decision.model_dump(mode="json", exclude={"root", "digest"}))
    write_atomic(out / "decision.md", _markdown(decision).encode())


def _markdown(decision: GateDecision) -> str:
    champion = f"champion version {decision.champion_version}" if decision.champion_version else "no champion"
    baseline = f"best baseline {decision.best_baseline}" if decision.best_baseline else "no baseline compared"
    used = decision.evidence_used() or "earlier verdicts were not counted"
    lines = [
        f"# Verdict: {decision.verdict}",
        "",
        literal(decision.reason),
        "",
        f"{decision.n_items} held-out items; {champion}; {baseline}; {used}.",
        "",
        "| verdict | rule | items | candidate | reference | difference | bounds | won : lost | method | why |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for finding in decision.findings:
        reference = finding.reference if finding.limit is None else finding.limit
        cells = [
            finding.verdict if finding.decides else "not judged",
            finding.rule,
            str(finding.n_items),
            _number(finding.candidate),
            _number(reference),
            _number(finding.difference, signed=True),
            _interval(finding),
            "-" if finding.won is None else f"{finding.won} : {finding.lost}",
            finding.method,
            finding.reason,
        ]
        lines.append("| " + " | ".join(literal(cell) for cell in cells) + " |")
    if decision.diagnosis is not None:
        lines += describe_past(decision.diagnosis)
    return "\n".join(lines) + "\n"


def describe_past(diagnosis: Diagnosis) -> list[str]:
    """Return the champion's earlier scores and what the labels say, as lines of Markdown."""
    lines: list[str] = []
    if diagnosis.past:
        lines += [
            "",
            f"| champion's {diagnosis.metric} at | items | then | common items | then | now | fresh items | now |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
    for when, each in diagnosis.dated():
        cells = [
            when, str(each.n_items), _number(each.score), str(each.n_common), _number(each.common_then),
            _number(each.common_now), str(each.n_fresh), _number(each.fresh),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    sentences = [*diagnosis.causes(), *diagnosis.notes()]
    return [*lines, "", *(f"- {literal(each)}" for each in sentences)] if sentences else lines


def _number(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def _interval(finding: Finding) -> str:
    if finding.lower is None and finding.upper is None:
        return "-"
    signed = finding.limit is None
    return f"{_number(finding.lower, signed=signed)} to {_number(finding.upper, signed=signed)}"
