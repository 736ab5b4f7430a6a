"""A graph as plain data: `tunegate graph --json` prints it, `runs/RUN-graph.json` keeps it, a report draws it.

It knows nothing of graphs that run. `flows/graph/draw.py` makes one of a plan or of a run.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

PictureState = Literal["reused", "made", "run", "maybe", "left out", "failed", "not run"]
"""reused: its result was in the store. made: this run made it. run: a run would make it. maybe: known only when an
earlier node has run. left out: it is not wanted, and the reason says why. failed: this run could not make it.
not run: the run ended first."""
Edge = tuple[str, str]
"""(from, to), by name."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PictureNode(_Part):
    """One node."""

    name: str
    """As Prefect shows it: `answers · champion`."""
    stage: str
    state: PictureState
    seconds: float | None
    """What it took or, in a plan, usually takes; 0 when reused, null where that is not known."""
    reason: str = ""
    """Why it would run, is left out or failed; empty where there is nothing to explain."""

    @property
    def status(self) -> str:
        """The state, with the time where it takes any: `made, 31.2 s`."""
        if not self.seconds or self.state not in ("made", "run", "maybe"):
            return self.state
        return f"{self.state}, {self.seconds:.1f} s"


class GraphPicture(_Part):
    """Nodes and edges, in an order in which the nodes can run."""

    nodes: tuple[PictureNode, ...]
    edges: tuple[Edge, ...]
    deciding: tuple[Edge, ...] = ()
    """Those edges whose start only decides whether the end is there; it hands nothing over."""

    def stages(self) -> dict[str, list[PictureNode]]:
        """The nodes of each stage, in order."""
        found: dict[str, list[PictureNode]] = {}
        for node in self.nodes:
            found.setdefault(node.stage, []).append(node)
        return found

    def counts(self) -> dict[PictureState, int]:
        """How many nodes are in each state."""
        found: dict[PictureState, int] = {}
        for node in self.nodes:
            found[node.state] = found.get(node.state, 0) + 1
        return found

    def with_made(self, names: Collection[str]) -> GraphPicture:
        """The same, with these nodes made where they have not ended."""
        made = {"state": "made", "reason": ""}
        ending = [node.name in names and node.state == "not run" for node in self.nodes]
        nodes = (node.model_copy(update=made) if ends else node for node, ends in zip(self.nodes, ending, strict=True))
        return self.model_copy(update={"nodes": tuple(nodes)})

    def to_json(self) -> dict[str, Any]:
        """Nodes and edges alone: what programs compare."""
        return self.model_dump(mode="json", include={"nodes", "edges"})
