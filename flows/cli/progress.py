"""Steps on stderr while a command makes them."""

import time

from flows.cli.output import talk
from flows.graph.execute import NodeOutcome, Observer
from flows.graph.graph import Node


class StepTimes(Observer):
    """Prints each step that was made, with its seconds."""

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        if not outcome.reused and not outcome.skipped:
            talk().print(f"  {node.name:<18} {outcome.seconds:.1f} s", style="dim", markup=False)


class StepNames(Observer):
    """Prints each step when it begins."""

    def started(self, node: Node) -> None:
        talk().print(f"  {node.name} ...", style="dim", markup=False)


def report_step(what: str) -> None:
    """Print what is done now, with the time: some of it takes minutes."""
    talk().print(f"  {time.strftime('%H:%M:%S')} {what}", style="dim", markup=False)
