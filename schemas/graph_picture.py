"""A graph as plain data, for `tunegate graph --json`, `runs/RUN-graph.json` and reports.

`flows/graph/draw.py` creates it from a plan or a run.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from schemas.spec import Frozen

PictureState = Literal["reused", "made", "run", "maybe", "left out", "failed", "not run"]
"""reused: its result was in the store. made: this run made it. run: a run would make it. maybe: known only once an
earlier node has run. left out: not wanted, for the given reason. failed: this run could not make it. not run: the run
ended before."""
Edge = tuple[str, str]
"""(from, to), by name."""


class PictureNode(Frozen):
    """One node."""

    name: str
    """As Prefect shows it: `answers · champion`."""
    stage: str
    state: PictureState
    seconds: float | None
    """Duration, or in a plan the usual one; 0 if reused, null if unknown."""
    reason: str = ""
    """Why it would run, is left out or failed; empty otherwise."""

    @property
    def status(self) -> str:
        """The state and, if any, the time: `made, 31.2 s`."""
        if not self.seconds or self.state not in ("made", "run", "maybe"):
            return self.state
        return f"{self.state}, {self.seconds:.1f} s"


class GraphPicture(Frozen):
    """Nodes and edges, in an order in which the nodes can run."""

    nodes: tuple[PictureNode, ...]
    edges: tuple[Edge, ...]
    deciding: tuple[Edge, ...] = ()
    """Edges that pass no result: their start only decides whether their end runs."""

    def stages(self) -> dict[str, list[PictureNode]]:
        """The nodes of each stage, in order."""
        found: dict[str, list[PictureNode]] = {}
        for node in self.nodes:
            found.setdefault(node.stage, []).append(node)
        return found

    def counts(self) -> dict[PictureState, int]:
        """Number of nodes in each state."""
        found: dict[PictureState, int] = {}
        for node in self.nodes:
            found[node.state] = found.get(node.state, 0) + 1
        return found

    def with_made(self, names: Collection[str]) -> GraphPicture:
        """The same, with those of these nodes that were not run marked as made."""
        made = {"state": "made", "reason": ""}
        nodes = tuple(
            node.model_copy(update=made) if node.name in names and node.state == "not run" else node
            for node in self.nodes
        )
        return self.model_copy(update={"nodes": nodes})

    def to_json(self) -> dict[str, Any]:
        """Only nodes and edges."""
        return self.model_dump(mode="json", include={"nodes", "edges"})
