"""Listeners that follow a run: the console, MLflow's live curves, and others."""

from flows.graph.execute import NodeOutcome
from flows.graph.graph import Node


class Listener:
    """Is notified of each node. Called by one thread at a time; methods must be quick and must not raise."""

    def started(self, node: Node) -> None:
        """The node has started."""

    def progressed(self, node: Node, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        """The node has done `done` of `total` units."""

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        """The node has its result, new or reused, or is left out."""

    def noted(self, text: str) -> None:
        """Something people should know: a warning, a skip, a pending synchronisation."""

    def entered(self, stage: str) -> None:
        """The run enters the next stage."""

    def table(self, name: str, rows: list[dict[str, str]], caption: str) -> None:
        """A table for the run's page."""

    def text(self, name: str, markdown: str) -> None:
        """A text for the run's page."""

    def link(self, name: str, url: str, caption: str) -> None:
        """Where a page about the run is."""


class Listeners(Listener):
    """Several listeners as one."""

    def __init__(self) -> None:
        self.members: list[Listener] = []

    def started(self, node: Node) -> None:
        for member in self.members:
            member.started(node)

    def progressed(self, node: Node, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        for member in self.members:
            member.progressed(node, done, total, unit, figures)

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        for member in self.members:
            member.ended(node, outcome)

    def noted(self, text: str) -> None:
        for member in self.members:
            member.noted(text)

    def entered(self, stage: str) -> None:
        for member in self.members:
            member.entered(stage)

    def table(self, name: str, rows: list[dict[str, str]], caption: str) -> None:
        for member in self.members:
            member.table(name, rows, caption)

    def text(self, name: str, markdown: str) -> None:
        for member in self.members:
            member.text(name, markdown)

    def link(self, name: str, url: str, caption: str) -> None:
        for member in self.members:
            member.link(name, url, caption)
