"""`tunegate gate explain`: why a gate decided as it did, down to the items that decided.

Ticket text goes to stdout alone, read from the local store; a note on stderr never quotes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from flows.commands.output import out, print_json, talk
from flows.context.timings import read_measured
from flows.views.run_reader import Recorded, shown_finding
from flows.workspace.settings import load_settings
from schemas.artifacts import GateDecision
from schemas.errors import ConfigError, TunegateError
from schemas.verdicts import Finding
from tasks.assess.worst import WorstItem


def explain(*, run_id: str, metric: str | None, n_items: int, config: Path, as_json: bool) -> int:
    """Print the findings of the run's gate and its worst items.

    Raises:
        ConfigError: TG0159, the run came to no gate, or its result is gone, or the metric was not judged.
    """
    recorded = Recorded(load_settings(config), run_id)
    row, decision = recorded.row, recorded.decision()
    if decision is None:
        raise ConfigError(
            f"run {row.run_id} came to no gate, or its decision is no longer in the store",
            code="TG0159", where=row.run_id, hint=f"`tunegate show {row.run_id}` says how far it came",
        )  # fmt: skip
    figures = (
        read_measured(recorded.settings, "latency", recorded.keys["latency"]) if "latency" in recorded.keys else {}
    )
    finding = shown_finding(decision, metric)
    note = ""
    worst: tuple[WorstItem, ...] = ()
    if n_items and finding is not None:
        try:
            worst = recorded.worst(decision, finding, n_items)
        except TunegateError as error:
            note = error.message
    if as_json:
        head = {"run_id": row.run_id, "verdict": decision.verdict, "reason": decision.reason}
        shown = {"metric": finding and finding.metric, "slice": finding and finding.slice}
        findings = [each.model_dump() for each in decision.findings]
        items = [asdict(item) for item in worst]
        print_json({**head, "findings": findings, "measured": figures, "shown": shown, "worst_items": items})
    else:
        _print_findings(row.run_id, decision)
        _print_measured(figures)
        _print_worst(worst, finding)
    if note:
        talk().print(f"[yellow]note[/yellow] the items are not shown: {escape(note)}")
    return 0


def _print_findings(run_id: str, decision: GateDecision) -> None:
    console = out()
    console.print(f"{run_id}  {decision.verdict}  {decision.reason}", markup=False)
    if decision.use is not None:
        console.print(decision.use.sentence(), markup=False)
    for finding in decision.findings:
        told = finding.verdict if finding.decides else "not judged"
        where = "" if finding.slice is None else f", slice {finding.slice}"
        bounds = "none" if finding.lower is None else f"{finding.lower:+.4f} to {finding.upper or 0:+.4f}"
        flips = "" if finding.won is None else f"; items won {finding.won}, lost {finding.lost}"
        limit = "" if finding.limit is None else f"; limit {finding.limit:g}"
        p_harm = "" if finding.p_harm is None else f"; p of harm {finding.p_harm:.2g}"
        console.print(f"\n{told:<8} {finding.rule}", markup=False)
        console.print(
            f"         metric {finding.metric}{where}; {finding.n_items} items; bounds {bounds} ({finding.method})"
            f"{limit}{flips}{p_harm}",
            markup=False,
        )
        console.print(f"         {finding.reason}", markup=False)


def _print_measured(figures: Mapping[str, float]) -> None:
    """Seconds and dollars that stand beside the decision, for no digest may depend on them."""
    if figures:
        told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        out().print(f"\nmeasured, outside the decision: {told}", markup=False)


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
