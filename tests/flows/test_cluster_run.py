"""`engine: ray` in a pipeline: which steps run on the cluster, and a whole run there with the same results."""

from pathlib import Path
from typing import Any

from flows.build import build as build_graph
from flows.context.graph_context import GraphContext
from flows.graph.graph import Node
from schemas.artifacts import ModelRef
from tasks.cluster.answers import AnsweringOnRay
from tasks.cluster.train_driver import TrainingOnRay
from tasks.compute.spread import ClusterPlace
from tests.support.specs import pipeline_spec

PLACE = ClusterPlace("10.0.0.5:6379", "file:///mnt/shared")


def key_of(node: Node) -> tuple[Any, ...]:
    """The parts of the node's key that do not depend on results."""
    return node.function, node.info, node.reads, node.params, repr(node.inputs)


def test_only_trainings_and_answers_run_on_the_cluster(tmp_path: Path, tiny_model: ModelRef) -> None:
    spec = pipeline_spec(
        train={
            "base_model": f"file:{tiny_model.root}",
            "sweep": {"kind": "grid", "over": {"learning_rate": [1e-4, 2e-4]}},
        }
    )
    local_graph, cluster_graph = (
        build_graph(spec, GraphContext("f", root=tmp_path, cache=tmp_path, trunks=tmp_path, place=place)).graph
        for place in (None, PLACE)
    )
    assert list(local_graph.nodes) == list(cluster_graph.nodes)
    remote_arguments: dict[str, Any] = {}
    for node in [*cluster_graph.of_stage("finetune"), *cluster_graph.of_stage("assess")]:
        local_node = local_graph.nodes[node.name]
        if node.kind == "step":
            assert key_of(node) == key_of(local_node), "keys do not depend on the place"
        context = {name: node.arguments.get(name) for name in node.info.context}
        if new := {name: value for name, value in context.items() if value != local_node.arguments.get(name)}:
            remote_arguments[node.name] = new
    trainings = {name for name in remote_arguments if name.startswith("train")}
    assert len(trainings) >= 2
    # Each graph counts the use of its own run.
    assert all(remote_arguments[name].keys() <= {"place", "limits"} for name in trainings)
    assert all(remote_arguments[name]["place"] == TrainingOnRay(PLACE) for name in trainings)
    answers = remote_arguments.keys() - trainings
    assert answers >= {"answers · zero_shot", "answers · tuned"}
    assert all(remote_arguments[name] == {"answering": AnsweringOnRay(PLACE)} for name in answers)


def test_the_driver_gets_the_secrets_that_a_training_process_does_not() -> None:
    place = TrainingOnRay(PLACE)
    environ = {
        "RAY_AUTH_TOKEN": "hush",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "RAY_ADDRESS": "elsewhere",
        "PYTHONPATH": "/x",
    }
    environment = place.environment(environ, threads=3)
    assert environment["RAY_AUTH_TOKEN"] == environment["AWS_SECRET_ACCESS_KEY"] == "hush"
    assert environment["RAY_ADDRESS"] == PLACE.address
    assert environment["TUNEGATE_SHARED"] == PLACE.shared
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.5"
    assert (
        place.environment(environ | {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "9"}, threads=1)[
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
        ]
        == "9"
    )
