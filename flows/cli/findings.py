"""The text of a verdict: its reason, then each finding with its bounds."""

from collections.abc import Iterator

from flows.cli.output import TextLine
from schemas.artifacts import GateDecision
from schemas.counted import counted


def findings_text(run_id: str, decision: GateDecision) -> Iterator[TextLine]:
    yield TextLine("  ".join(filter(None, (run_id, decision.verdict, decision.reason))), wraps=True)
    if used := decision.evidence_used():
        yield TextLine(used, wraps=True)
    for finding in decision.findings:
        verdict = finding.verdict if finding.decides else "not judged"
        where = "" if finding.slice is None else f", slice {finding.slice}"
        # A comparison bounds the difference, which has a sign; a limit bounds the value itself.
        kind, form = ("value", ".4f") if finding.reference is None else ("difference", "+.4f")
        bounds = f"no bounds of the {kind}"
        if finding.lower is not None and finding.upper is not None:
            bounds = f"{kind} between {finding.lower:{form}} and {finding.upper:{form}}"
        flips = "" if finding.won is None else f"; items won {finding.won}, lost {finding.lost}"
        limit = "" if finding.limit is None else f"; limit {finding.limit:g}"
        p_harm = "" if finding.p_harm is None else f"; p-value of no harm {finding.p_harm:.2g}"
        yield TextLine(
            f"\n{verdict:<8} {finding.rule}\n"
            f"         metric {finding.metric}{where}; {counted(finding.n_items, 'item')}; {bounds} ({finding.method})"
            f"{limit}{flips}{p_harm}\n"
            f"         {finding.reason}",
            wraps=True,
        )
