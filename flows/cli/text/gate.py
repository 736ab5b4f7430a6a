"""A verdict for people: its findings, the measurements next to it, and the worst items."""

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from flows.cli.output import out
from schemas.artifacts import GateDecision
from schemas.counted import counted
from schemas.verdicts import Finding
from tasks.assess.worst import WorstItem


def print_decision(
    run_id: str,
    decision: GateDecision,
    figures: Mapping[str, float],
    worst: tuple[WorstItem, ...],
    finding: Finding | None,
) -> None:
    """Everything that is known of the verdict.

    Args:
        figures: Seconds and dollars that were measured, by name.
        worst: Items of the finding's metric, the worst first.
        finding: The one whose items are shown; null where there is none.
    """
    _print_findings(run_id, decision)
    if figures:  # no part of the decision, because no digest may depend on them
        text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        out().print(f"\nmeasured, outside the decision: {text}", markup=False)
    _print_worst(worst, finding)


def _print_findings(run_id: str, decision: GateDecision) -> None:
    console = out()
    console.print(f"{run_id}  {decision.verdict}  {decision.reason}", markup=False)
    if used := decision.evidence_used():
        console.print(used, markup=False)
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
        console.print(f"\n{verdict:<8} {finding.rule}", markup=False)
        console.print(
            f"         metric {finding.metric}{where}; {counted(finding.n_items, 'item')}; {bounds} ({finding.method})"
            f"{limit}{flips}{p_harm}",
            markup=False,
        )
        console.print(f"         {finding.reason}", markup=False)


def _print_worst(worst: tuple[WorstItem, ...], finding: Finding | None) -> None:
    if finding is None:
        return
    console = out()
    where = f" in {finding.slice}" if finding.slice else ""
    console.print(f"\nworst items by {finding.metric}{where}: {len(worst)}", markup=False)
    for item in worst:
        against = "" if item.reference is None else f" against {item.reference:.3f}"
        slices = ", ".join(item.slices)
        console.print(f"\n{item.item_id}  {item.candidate:.3f}{against}  {slices}", markup=False)
        console.print(item.question, markup=False)
        table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        columns = {"wanted": item.wanted, "candidate": item.candidate_answer}
        if item.reference_answer is not None:
            columns["reference"] = item.reference_answer
        for name in columns:
            table.add_column(name, overflow="fold", ratio=1)
        table.add_row(*map(escape, columns.values()))
        console.print(table)
