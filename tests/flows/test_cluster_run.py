"""`engine: ray` in a pipeline: which steps go to the cluster, and a whole run there that ends in the same results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.assess import assess_steps
from flows.cluster import on_cluster
from flows.finetune import finetune_steps
from flows.standing import Standing
from schemas.artifacts import ModelRef
from tasks.cluster.answers import AnsweringOnRay
from tasks.cluster.connect import Place
from tasks.cluster.train_driver import TrainingOnRay
from tests.schemas.test_pipeline import build

if TYPE_CHECKING:
    pass

PLACE = Place("10.0.0.5:6379", "file:///mnt/shared")


def test_trainings_and_answers_go_to_the_cluster_and_nothing_else_changes(tmp_path: Path, tiny_model: ModelRef) -> None:
    spec = build(
        train={
            "base_model": f"file:{tiny_model.root}",
            "sweep": {"kind": "grid", "over": {"learning_rate": [1e-4, 2e-4]}},
        }
    )
    steps = [
        *finetune_steps(spec, root=tmp_path, cache=tmp_path, trunks=tmp_path),
        *assess_steps(spec, standing=Standing()),
    ]
    assert on_cluster(steps, None) == steps
    sent: dict[str, Any] = {}
    for step, there in zip(steps, on_cluster(steps, PLACE), strict=True):
        assert {**vars(there), "context": None} == {**vars(step), "context": None}, "what keys are made of"
        if new := {name: there.context[name] for name in there.context.keys() - step.context.keys()}:
            sent[step.name] = new
    trainings = {name for name in sent if "train" in name and "answers" not in name}
    assert len(trainings) >= 2
    assert all(sent[name] == {"place": TrainingOnRay(PLACE)} for name in trainings)
    answers = sent.keys() - trainings
    assert answers >= {"answers_zero_shot", "answers_tuned"}
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
