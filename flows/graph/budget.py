"""What nodes may occupy at the same time: cores, memory, accelerators, and one heavy node."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from flows.graph.graph import Node
from flows.workspace.settings import Settings

Amounts = Mapping[str, float]


def budget_of(settings: Settings) -> dict[str, float]:
    """What steps may occupy at the same time: what the machine has, unless the settings say otherwise."""
    declared = {"cpu": settings.cpu, "gpu": settings.gpu, "memory_gb": settings.memory_gb}
    return budget_of_machine() | {name: amount for name, amount in declared.items() if amount is not None}


def budget_of_machine() -> dict[str, float]:
    """What nodes may occupy at the same time on this machine: cores, memory, accelerators, and one heavy node."""
    return {
        "cpu": float(max(2, len(os.sched_getaffinity(0)))),
        "gpu": float(len(list(Path("/dev").glob("nvidia[0-9]*")))),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "heavy": 1.0,
    }


def needs(node: Node, budget: Amounts) -> dict[str, float]:
    """What the node occupies while it runs.

    A heavy one leaves one core, so that light ones can run next to it. A node that would take more memory than there
    is takes all of it: it then runs alone.
    """
    memory = {"memory_gb": min(node.info.memory_gb, budget["memory_gb"])} if "memory_gb" in budget else {}
    if not node.info.heavy:
        return {"cpu": 1.0, **memory}
    return {"heavy": 1.0, "cpu": max(1.0, budget.get("cpu", 2.0) - 1.0), "gpu": budget.get("gpu", 0.0), **memory}


def fits(amounts: Amounts, free: Amounts) -> bool:
    """Is enough free of everything?"""
    return all(amount <= free.get(name, 0.0) for name, amount in amounts.items())


def may_start(takes: Amounts, free: Amounts, budget: Amounts, waiting: Iterable[Amounts]) -> bool:
    """Does the node fit, and leave room for a heavy one before it that waits for its cores alone?

    Else light nodes that take each other's place would keep the heavy one from ever having them.

    Args:
        waiting: What the nodes before it would take that wait.
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
