"""Show a run on stderr while it runs and when it ends: one line per step, then the verdict.

A terminal gets a live line with rate and time left; anything else gets plain lines. It knows nothing about Prefect.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from flows.context.listener import Listener
from flows.graph.execute import Outcome
from flows.graph.graph import Node
from schemas.artifacts import (
    Artifact,
    BundleRef,
    CheckResults,
    CurationCard,
    DatasetRef,
    EvalSet,
    GateDecision,
    InterimAnswers,
    ModelRef,
    Predictions,
    PromptSet,
    RowCounts,
    Scores,
    Splits,
    TicketTable,
    TrainedRef,
    ValidationCurves,
    WarehouseRef,
)
from schemas.counted import counted
from schemas.data_checks import count_checks
from schemas.evidence import CheckEvidence
from schemas.trials import ChoiceRef, TrialRef
from schemas.verdicts import Finding

PLAIN_EVERY_S = 15.0
NAME_WIDTH = 20
STYLES = {
    "PROMOTE": "bold green",
    "UNCOMPARED": "bold yellow",
    "HOLD": "bold yellow",
    "BLOCK": "bold red",
    "ERROR": "bold red",
}


class Notes(logging.Handler):
    """Shows warnings of our own loggers (a damaged result that was moved away, say) as notes."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.noted(record.getMessage())


class Screen(Listener):
    """A listener that writes to the console: a live line for each running node, a plain one when it ends."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._first: dict[str, tuple[float, int]] = {}
        self._last_plain: dict[str, float] = {}

    def started(self, node: Node) -> None:
        self._end_line(node.name)  # of a failed attempt
        self._first.pop(node.name, None)
        self._last_plain[node.name] = time.monotonic()
        if self.console.is_terminal and node.takes("progress"):
            if self._live is None:
                self._live = Progress(
                    TextColumn("  {task.description}"),
                    BarColumn(bar_width=24),
                    TextColumn("{task.fields[progress]}"),
                    TimeRemainingColumn(compact=True),
                    console=self.console,
                    transient=True,
                )
                self._live.start()
            self._tasks[node.name] = self._live.add_task(f"{node.name:<{NAME_WIDTH}}", total=None, progress="")

    def progressed(self, node: Node, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        now, name = time.monotonic(), node.name
        # Speed counts from the first report: what comes before it is preparation, or work of an earlier attempt.
        at, before = self._first.setdefault(name, (now, done))
        text = _progress_text(done, total, unit, figures, rate=(done - before) / (now - at) if now > at else 0.0)
        live = self._live  # another thread may close it meanwhile
        if live is not None and name in self._tasks:
            live.update(self._tasks[name], completed=done, total=total, progress=text)
        elif not self.console.is_terminal and now - self._last_plain.setdefault(name, now) >= PLAIN_EVERY_S:
            self._last_plain[name] = now
            self.console.print(f"  {name:<{NAME_WIDTH}} {text}", highlight=False)

    def ended(self, node: Node, outcome: Outcome) -> None:
        self._end_line(node.name)
        if node.kind == "act":
            return
        if outcome.skipped:
            self.console.print(f"  {node.name:<{NAME_WIDTH}} left out: {escape(outcome.skipped)}", highlight=False)
            return
        took = "reused" if outcome.reused else f"{outcome.seconds:.1f} s"
        summary = describe(outcome.result)
        self.console.print(f"  {node.name:<{NAME_WIDTH}} {summary}", f"[dim]{took}[/dim]", highlight=False)

    def noted(self, text: str) -> None:
        self.console.print(f"  [yellow]note[/yellow] {escape(text)}", highlight=False)

    def entered(self, stage: str) -> None:
        self.close()
        self.console.print(f"[bold]{stage}[/bold]", highlight=False)

    def close(self) -> None:
        """Restore the terminal, also after an error."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._tasks.clear()

    def _end_line(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None and self._live is not None:
            self._live.remove_task(task)
            if not self._tasks:
                self.close()


def _progress_text(done: int, total: int | None, unit: str, figures: dict[str, float], *, rate: float) -> str:
    of = f"/{total:,}" if total else ""
    parts = [f"{done:,}{of} {unit}", *(f"{name} {value:.4g}" for name, value in figures.items())]
    if rate > 0:
        parts.append(f"{rate:,.1f} {unit}/s" if rate < 100 else f"{rate:,.0f} {unit}/s")
    if total and rate > 0:
        parts.append(f"ETA {max(0.0, (total - done) / rate):.0f} s")
    return "  ".join(parts)


def describe(artifact: Artifact) -> str:
    """Describe a step's result in one phrase.

    >>> from pathlib import Path
    >>> describe(EvalSet(root=Path("/x"), n_items=96, n_available=400))
    '96 held-out items of 400'
    """
    match artifact:
        case TicketTable():
            return _rows(artifact.rows)
        case Splits():
            sizes = f"train {artifact.n_train:,}  validation {artifact.n_validation:,}  test {artifact.n_test:,}"
            faulty = f", {artifact.rows.n_quarantined:,} quarantined" if artifact.rows.n_quarantined else ""
            return f"{sizes}  ({artifact.rows.n_dropped:,} dropped{faulty})"
        case WarehouseRef():
            return f"{counted(artifact.n_tickets, 'ticket')}, the fate of every row in warehouse.duckdb"
        case CurationCard():
            columns = counted(artifact.n_shifted, "column has", "columns have")
            shifted = f", {columns} shifted a lot since the last" if artifact.n_shifted else ""
            n_kept = artifact.n_train + artifact.n_validation + artifact.n_test
            return f"{counted(artifact.n_read, 'row')} read, {n_kept:,} kept{shifted}"
        case CheckResults():
            return count_checks(artifact.results)
        case ModelRef():
            return f"{artifact.n_parameters:,} parameters"
        case DatasetRef():
            n_train, n_tokens = counted(artifact.n_train, "example"), counted(artifact.n_tokens, "token")
            return f"{n_train}, {n_tokens}, {artifact.n_supervised:,} with loss"
        case TrainedRef():
            validation = "" if artifact.validation_loss is None else f", validation {artifact.validation_loss:.3f}"
            return (
                f"{artifact.method}: {artifact.n_trainable:,} trainable, {counted(artifact.n_steps, 'step')}, "
                f"loss {artifact.train_loss:.3f}{validation}"
            )
        case ValidationCurves():
            last = "".join(f"  {name} {value:.3f}" for name, value in artifact.last.items())
            answered = f"answered {counted(artifact.n_validations, 'time')}"
            return f"{counted(artifact.n_items, 'validation ticket')} {answered}, last{last}"
        case EvalSet():
            faulty = f", {artifact.n_quarantined:,} quarantined" if artifact.n_quarantined else ""
            repeated = f", {artifact.n_repeated:,} with the prompt of another" if artifact.n_repeated else ""
            return f"{counted(artifact.n_items, 'held-out item')} of {artifact.n_available:,}{faulty}{repeated}"
        case PromptSet():
            return counted(artifact.n_items, "prompt")
        case Predictions():
            return f"{counted(artifact.n_items, 'answer')}, {counted(artifact.n_new_tokens, 'token')}"
        case InterimAnswers():
            return artifact.use.sentence()
        case Scores():
            shown = list(artifact.means.items())[:3]
            return "  ".join(f"{metric} {value:.3f}" for metric, value in shown)
        case CheckEvidence():
            return _values(artifact)
        case GateDecision():
            return artifact.verdict
        case TrialRef():
            value = "no finite value" if artifact.row.value is None else f"{artifact.row.value:.4g}"
            return "; ".join(filter(None, (artifact.row.summary or f"{value} on validation", artifact.row.advice)))
        case ChoiceRef():
            return artifact.winner
        case BundleRef():
            return f"{artifact.n_bytes / 1e6:.1f} MB"
    return "passed" if type(artifact) is Artifact else artifact.digest[:12]


def _values(evidence: CheckEvidence) -> str:
    shown = [f"{name} {value:.4g}" for name, value in evidence.values.items() if value is not None and value != 0]
    return "  ".join(shown[:4]) or "nothing found"


def _rows(rows: RowCounts) -> str:
    lost = {"quarantined": rows.n_quarantined, "dropped": rows.n_dropped, "merged": rows.n_merged}
    losses = "".join(f", {count:,} {name}" for name, count in lost.items() if count)
    return f"{rows.n_in:,} -> {rows.n_out:,} rows{losses}"


def gate_table(decision: GateDecision) -> Table:
    """Return the findings as a table: reference, candidate, difference with bounds, limit, items, verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("rule", "reference", "candidate", "difference", "bounds", "limit", "n", "verdict"):
        table.add_column(name, justify="left" if name in {"rule", "verdict"} else "right", overflow="fold")
    for finding in decision.findings:
        table.add_row(*map(escape, gate_row(finding).values()))
    return table


def gate_row(finding: Finding) -> dict[str, str]:
    """Return one finding as text cells; used by the console and by Prefect's table artifact."""
    bounds = "" if finding.lower is None or finding.upper is None else f"{finding.lower:+.3f} .. {finding.upper:+.3f}"
    return {
        "rule": finding.rule,
        "reference": _number(finding.reference),
        "candidate": _number(finding.candidate),
        "difference": "" if finding.difference is None else f"{finding.difference:+.3f}",
        "bounds": bounds,
        "limit": _number(finding.limit),
        "n": str(finding.n_items),
        "verdict": finding.verdict if finding.decides else "not judged",
    }


def print_decision(console: Console, decision: GateDecision) -> None:
    """Print the gate's table and, for every rule not met, its reason; rules with the same reason share a line."""
    console.print()
    console.print(gate_table(decision))
    console.print()
    rules: dict[tuple[str, str], list[str]] = {}
    for finding in decision.findings:
        if finding.verdict != "PROMOTE":
            label = finding.verdict if finding.decides else "note"
            rules.setdefault((label, finding.reason), []).append(finding.rule)
    for (kind, reason), names in rules.items():
        console.print(f"  {kind:<7} {'; '.join(dict.fromkeys(names))}: {reason}", highlight=False, markup=False)
    if decision.remark:
        console.print(f"  note    {decision.remark}", highlight=False, markup=False)
    if used := decision.evidence_used():
        console.print(f"  {used}", highlight=False, markup=False)
    console.print()


def print_verdict(console: Console, verdict: str, sentence: str, *, details: Iterable[str] = ()) -> None:
    """Print the last lines of a run: the verdict in one sentence, then where to look."""
    style = STYLES.get(verdict, "bold")
    console.print(f"[{style}]{verdict}[/{style}]", escape(sentence), highlight=False)
    for line in details:
        console.print(f"  {line}", highlight=False, markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
