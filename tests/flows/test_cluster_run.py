"""`engine: ray` in a pipeline: which steps go to the cluster, and a whole run there that ends in the same results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.build import build as build_graph
from flows.context.graph_context import GraphContext
from flows.graph.graph import Node
from schemas.artifacts import ModelRef
from tasks.cluster.answers import AnsweringOnRay
from tasks.cluster.connect import Place
from tasks.cluster.train_driver import TrainingOnRay
from tests.schemas.test_pipeline import build

PLACE = Place("10.0.0.5:6379", "file:///mnt/shared")


def key_of(node: Node) -> tuple[Any, ...]:
    """What the node's key is made of, before there are results."""
    return node.function, node.info, node.reads, node.params, repr(node.inputs)


def test_trainings_and_answers_go_to_the_cluster_and_nothing_else_changes(tmp_path: Path, tiny_model: ModelRef) -> None:
    spec = build(
        train={
            "base_model": f"file:{tiny_model.root}",
            "sweep": {"kind": "grid", "over": {"learning_rate": [1e-4, 2e-4]}},
        }
    )
    here, there = (
        build_graph(spec, GraphContext("f", root=tmp_path, cache=tmp_path, trunks=tmp_path, place=place)).graph
        for place in (None, PLACE)
    )
    assert list(here.nodes) == list(there.nodes)
    sent: dict[str, Any] = {}
    for node in [*there.of_stage("finetune"), *there.of_stage("assess")]:
        local = here.nodes[node.name]
        if node.kind == "step":
            assert key_of(node) == key_of(local), "what keys are made of"
        context = {name: node.arguments.get(name) for name in node.info.context}
        if new := {name: value for name, value in context.items() if value != local.arguments.get(name)}:
            sent[node.name] = new
    trainings = {name for name in sent if name.startswith("train")}
    assert len(trainings) >= 2
    assert all(sent[name] == {"place": TrainingOnRay(PLACE)} for name in trainings)
    answers = sent.keys() - trainings
    assert answers >= {"answers · zero_shot", "answers · tuned"}
    assert all(sent[name] == {"answering": AnsweringOnRay(PLACE)} for name in answers)


def test_the_driver_keeps_the_secrets_that_a_training_process_has_not() -> None:
    place = TrainingOnRay(PLACE)
    given = {"RAY_AUTH_TOKEN": "hush", "AWS_SECRET_ACCESS_KEY": "hush", "RAY_ADDRESS": "elsewhere", "PYTHONPATH": "/x"}
    environment = place.environment(given, threads=3)
    assert environment["RAY_AUTH_TOKEN"] == environment["AWS_SECRET_ACCESS_KEY"] == "hush"
    assert environment["RAY_ADDRESS"] == PLACE.address
    assert environment["TUNEGATE_SHARED"] == PLACE.shared
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.5"
    assert (
        place.environment(given | {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "9"}, threads=1)[
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
        ]
        == "9"
    )
