"""How long a graph takes, from what its nodes usually take: one after the other, side by side within a budget, and at
least. The stages are barriers: one begins when the one before has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flows.graph.budget import Amounts, may_start, needs
from flows.graph.graph import Graph, Node


@dataclass(frozen=True)
class Times:
    """Seconds."""

    one_by_one: float
    """The sum of all."""
    side_by_side: float
    """As the driver starts them within the budget."""
    critical_path: float
    """The longest chain: what is left when nothing waits for resources."""


def times(graph: Graph, seconds: Mapping[str, float], budget: Amounts) -> Times:
    """Times of a graph.

    Args:
        seconds: Node's name -> what it takes; nodes that are not named take nothing.
        budget: What nodes may occupy at the same time; see `flows/graph/execute.py`.
    """
    stages = [graph.of_stage(stage) for stage in graph.stages()]
    return Times(
        one_by_one=sum(seconds.get(name, 0.0) for name in graph.nodes),
        side_by_side=sum(_side_by_side(graph, nodes, seconds, budget) for nodes in stages),
        critical_path=sum(_critical_path(graph, nodes, seconds) for nodes in stages),
    )


def _side_by_side(graph: Graph, nodes: list[Node], seconds: Mapping[str, float], budget: Amounts) -> float:
    """The end of the last node when each starts as `drive` would start it: the first in order that may."""
    now, free = 0.0, dict(budget)
    waiting, running, ended = list(nodes), dict[Node, float](), set[Node]()
    mine = set(nodes)
    while waiting or running:
        held_up: list[dict[str, float]] = []
        for node in list(waiting):
            takes = needs(node, budget) if seconds.get(node.name) else {}
            is_ready = all(parent in ended or parent not in mine for parent in graph.parents(node))
            if not is_ready:
                continue
            if not may_start(takes, free, budget, held_up):
                held_up.append(takes)
            else:
                waiting.remove(node)
                running[node] = now + seconds.get(node.name, 0.0)
                free = {name: amount - takes.get(name, 0.0) for name, amount in free.items()}
        if not running:
            raise ValueError(f"{waiting[0].name} can never start within {dict(budget)}")
        first = min(running, key=running.__getitem__)
        now = running.pop(first)
        takes = needs(first, budget) if seconds.get(first.name) else {}
        free = {name: amount + takes.get(name, 0.0) for name, amount in free.items()}
        ended.add(first)
    return now


def _critical_path(graph: Graph, nodes: list[Node], seconds: Mapping[str, float]) -> float:
    ends: dict[Node, float] = {}
    for node in nodes:
        begins = max((ends[parent] for parent in graph.parents(node) if parent in ends), default=0.0)
        ends[node] = begins + seconds.get(node.name, 0.0)
    return max(ends.values(), default=0.0)
