"""Resources that nodes may use at the same time, and how long a graph takes within them.

Resources are cores, memory, accelerators, and one heavy node.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.graph.graph import Graph, Node
from flows.workspace.settings import Settings

Amounts = Mapping[str, float]


def budget_of(settings: Settings) -> dict[str, float]:
    """Return what steps may use at the same time: what the machine has, unless the settings say otherwise."""
    declared = {"cpu": settings.cpu, "gpu": settings.gpu, "memory_gb": settings.memory_gb}
    return budget_of_machine() | {name: amount for name, amount in declared.items() if amount is not None}


def budget_of_machine() -> dict[str, float]:
    """Return what nodes may use at the same time on this machine: cores, memory, accelerators, and one heavy node."""
    return {
        "cpu": float(max(2, len(os.sched_getaffinity(0)))),
        "gpu": float(len(list(Path("/dev").glob("nvidia[0-9]*")))),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "heavy": 1.0,
    }


def needs(node: Node, budget: Amounts) -> dict[str, float]:
    """Return what the node uses while it runs.

    A heavy one leaves one core, so that light ones can run next to it. A node that needs more memory than there is
    takes all of it: it then runs alone.
    """
    memory = {"memory_gb": min(node.info.memory_gb, budget["memory_gb"])} if "memory_gb" in budget else {}
    if not node.info.heavy:
        return {"cpu": 1.0, **memory}
    return {"heavy": 1.0, "cpu": max(1.0, budget.get("cpu", 2.0) - 1.0), "gpu": budget.get("gpu", 0.0), **memory}


def fits(amounts: Amounts, free: Amounts) -> bool:
    return all(amount <= free.get(name, 0.0) for name, amount in amounts.items())


def may_start(takes: Amounts, free: Amounts, budget: Amounts, waiting: Iterable[Amounts]) -> bool:
    """Return whether the node fits, and leaves room for a heavy one before it that only waits for its cores.

    Else light nodes that follow each other would keep the heavy one waiting forever.

    Args:
        waiting: What the waiting nodes before it need.
    """
    if not fits(takes, free):
        return False
    return not any(
        0.0 < heavy.get("heavy", 0.0) <= free["heavy"]
        and any(
            budget[name] - free[name] + amount > budget[name] - heavy.get(name, 0.0) for name, amount in takes.items()
        )
        for heavy in waiting
    )


@dataclass(frozen=True)
class Times:
    """Seconds."""

    one_by_one: float
    """The sum of all."""
    side_by_side: float
    """In parallel within the budget, as the driver starts them."""
    critical_path: float
    """The longest chain: the minimum, if nothing waits for resources."""


def times(graph: Graph, seconds: Mapping[str, float], budget: Amounts) -> Times:
    """Estimate the times of a graph. Stages are barriers: each begins when the previous one has ended.

    Args:
        seconds: Node's name -> what it takes; other nodes take no time.
        budget: What nodes may use at the same time; see `flows/graph/execute.py`.
    """
    stages = [graph.of_stage(stage) for stage in graph.stages()]
    return Times(
        one_by_one=sum(seconds.get(name, 0.0) for name in graph.nodes),
        side_by_side=sum(_side_by_side(graph, nodes, seconds, budget) for nodes in stages),
        critical_path=sum(_critical_path(graph, nodes, seconds) for nodes in stages),
    )


def _side_by_side(graph: Graph, nodes: list[Node], seconds: Mapping[str, float], budget: Amounts) -> float:
    """Return the end of the last node if each starts as in `drive`: the first in order that may."""
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
