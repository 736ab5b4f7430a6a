"""How many workers of what size a cluster holds: CPUs for the threads that compute, and a card each if it has any.

It knows nothing of trainings' contents. Used by tasks/cluster/train_driver.py and tasks/cluster/answers.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import TrainingError
from schemas.training import TrainSpec


@dataclass(frozen=True)
class TrainWorkers:
    """What each worker asks for."""

    cards: bool
    resources: dict[str, float]


def workers_for(spec: TrainSpec, threads: int) -> TrainWorkers:
    """Those of a training on the nodes that are there now.

    Raises:
        TrainingError: TG0417, they do not have room for all processes.
    """
    nodes = nodes_now()
    cards = has_cards(nodes)
    room = n_workers(nodes, threads, cards=cards)
    if room < spec.processes:
        raise no_room(spec.processes, room, threads, cards=cards)
    return TrainWorkers(cards, {"CPU": threads, **({"GPU": 1} if cards else {})})


def nodes_now() -> list[Mapping[str, float]]:
    """The resources of each node that is alive."""
    import ray

    alive: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]
    return [node["Resources"] for node in alive]


def has_cards(nodes: Iterable[Mapping[str, float]]) -> bool:
    """Is there any card? Then all compute on cards: bytes differ between a card and a CPU."""
    return any(node.get("GPU", 0) >= 1 for node in nodes)


def n_workers(nodes: Iterable[Mapping[str, float]], threads: int, *, cards: bool) -> int:
    """How many workers of that many threads the nodes hold at once.

    >>> n_workers([{"CPU": 8, "GPU": 2}, {"CPU": 3}], 2, cards=False), n_workers([{"CPU": 8, "GPU": 2}], 2, cards=True)
    (5, 2)
    """
    rooms = [(node.get("CPU", 0) // threads, node.get("GPU", 0)) for node in nodes]
    return int(sum(min(each) if cards else each[0] for each in rooms))


def no_room(wanted: int, room: int, threads: int, *, cards: bool) -> TrainingError:
    """The error that says so."""
    each = f"{threads} CPUs" + (" and a card" if cards else "")
    return TrainingError(
        f"{wanted} workers of {each} are wanted, the nodes of the cluster hold {room}",
        code="TG0417",
        where="engine: ray",
        hint="set train.threads and evaluate.threads to what a node has (by default they are what this machine has), "
        "or lower train.processes; nodes that would be added later do not count",
    )
