"""Show a run on stderr while it runs and when it ends: one line per step, then the verdict.

A terminal gets a live line with rate and time left; anything else gets plain lines.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from flows.context.listener import Listener
from flows.graph.execute import NodeOutcome
from flows.graph.graph import Node
from flows.views.arms import arm_rows
from flows.views.phrases import describe, describe_progress, gate_row
from schemas.artifacts import GateDecision
from schemas.report import ArmLine
from tasks.assess.decision import describe_passes

PLAIN_EVERY_S = 15.0
NAME_WIDTH = 20
STYLES = {
    "PROMOTE": "bold green",
    "UNCOMPARED": "bold yellow",
    "HOLD": "bold yellow",
    "BLOCK": "bold red",
    "ERROR": "bold red",
}


class NoteHandler(logging.Handler):
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
        text = describe_progress(done, total, unit, figures, rate=(done - before) / (now - at) if now > at else 0.0)
        live = self._live  # another thread may close it meanwhile
        if live is not None and name in self._tasks:
            live.update(self._tasks[name], completed=done, total=total, progress=text)
        elif not self.console.is_terminal and now - self._last_plain.setdefault(name, now) >= PLAIN_EVERY_S:
            self._last_plain[name] = now
            self.console.print(f"  {name:<{NAME_WIDTH}} {text}", highlight=False)

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        self._end_line(node.name)
        if node.kind == "effect":
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


def gate_table(decision: GateDecision) -> Table:
    """Return the findings as a table: reference, candidate, difference with bounds, limit, items, verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("rule", "reference", "candidate", "difference", "bounds", "limit", "n", "verdict"):
        table.add_column(name, justify="left" if name in {"rule", "verdict"} else "right", overflow="fold")
    for finding in decision.findings:
        table.add_row(*map(escape, gate_row(finding).values()))
    return table


def arms_table(arms: Sequence[ArmLine], decision: GateDecision) -> Table:
    """Return the arms as a table: the examples that each learned from or was shown, and its scores."""
    rows = arm_rows(arms, decision)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0] if rows else ():
        table.add_column(name, justify="left" if name == "arm" else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row.values()))
    return table


def print_decision(console: Console, decision: GateDecision, arms: Sequence[ArmLine] = ()) -> None:
    """Print the tables of gate and arms and, for every rule not met, its reason, once for rules that share it."""
    console.print()
    console.print(gate_table(decision))
    console.print()
    if arms:
        console.print(arms_table(arms, decision))
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
    if decision.cheaper:
        console.print(f"  warning {decision.cheaper}", highlight=False, markup=False)
    if decision.references:
        console.print(f"  warning {decision.references}", highlight=False, markup=False)
    does = describe_passes(decision.findings, decision.verdict)
    if does and decision.verdict != "PROMOTE":  # whose one sentence has it
        console.print(f"  {does}", highlight=False, markup=False)
    if used := decision.evidence_used():
        console.print(f"  {used}", highlight=False, markup=False)
    console.print()


def print_verdict(console: Console, verdict: str, sentence: str, *, details: Iterable[str] = ()) -> None:
    """Print the last lines of a run: the verdict in one sentence, then where to look."""
    style = STYLES.get(verdict, "bold")
    console.print(f"[{style}]{verdict}[/{style}]", escape(sentence), highlight=False)
    for line in details:
        console.print(f"  {line}", highlight=False, markup=False)
