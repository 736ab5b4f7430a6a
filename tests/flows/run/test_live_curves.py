"""Training metrics reach MLflow during training, from another thread; a failure there only adds a note."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.graph.execute import NodeOutcome
from flows.graph.graph import Graph, Node
from flows.ledger.open import open_ledger
from flows.run.live_curves import LiveCurves
from flows.workspace.settings import Settings
from schemas.artifacts import Artifact
from tasks.release.register import OWNER_TAG
from tasks.release.tracking import RUN_TAG, choose_uri, open_client
from tasks.step import as_step
from tests.support.processes import wait_for
from tests.support.specs import pipeline_spec


@as_step("work")
def work(out: Path) -> Artifact:
    """A step that is never run."""
    return Artifact(root=out)


def node(name: str) -> Node:
    graph = Graph()
    graph.named(name).add(work)
    return graph.nodes[name]


TRAIN, ENCODE = node("train"), node("encode")


class Notes(list[str]):
    """A listener that keeps the notes."""

    def noted(self, text: str) -> None:
        self.append(text)


def run_of(home: Path, tracking_uri: str = "") -> Any:
    """The parts of a run that the listener reads."""
    spec = pipeline_spec(name="small", register={"name": "replies", "tracking_uri": tracking_uri})
    settings = Settings(home=home, cache=home, prefect_api_url=None, mlflow_tracking_uri=None)
    ledger = open_ledger(settings)
    return SimpleNamespace(
        spec=spec, trained_spec=spec, settings=settings, run_id="run-live", listeners=Notes(), ledger=ledger
    )


def finish(curves: LiveCurves, home: Path) -> None:
    curves.ended(TRAIN, NodeOutcome(Artifact(root=home), seconds=1.0))


def test_points_arrive_during_training_and_are_complete_at_its_end(tmp_path: Path) -> None:
    context = run_of(tmp_path)
    curves = LiveCurves(context)
    curves.progressed(ENCODE, 5, 10, "rows", {"loss": 9.0})
    curves.progressed(TRAIN, 0, 100, "steps", {})
    assert not (tmp_path / "mlflow").exists()

    uri = choose_uri("", None, home=tmp_path)
    step = 0

    def history() -> list[tuple[int, float]]:
        client = open_client(uri)
        found = client.get_experiment_by_name("tunegate")
        runs = client.search_runs([found.experiment_id], f"tags.`{RUN_TAG}` = 'run-live'") if found else []
        return sorted((p.step, p.value) for run in runs for p in client.get_metric_history(run.info.run_id, "loss"))

    curves.progressed(TRAIN, 0, 100, "steps", {"loss": 10.0})
    wait_for(lambda: (tmp_path / "mlflow" / "mlflow.db").exists())

    def report_step() -> bool:
        nonlocal step
        step += 1  # never quiet long enough for the batch to end
        curves.progressed(TRAIN, step, 100, "steps", {"loss": 10.0 - step / 1000, "learning_rate": 1e-4})
        return step % 5 == 0 and len(history()) > 0

    wait_for(report_step)
    finish(curves, tmp_path)
    assert history() == [(n, pytest.approx(10.0 - n / 1000)) for n in range(step + 1)]
    assert context.listeners == []


def test_an_unreachable_mlflow_adds_one_note(tmp_path: Path) -> None:
    context = run_of(tmp_path, tracking_uri="http://127.0.0.1:9")
    curves = LiveCurves(context)
    for step in range(50):
        curves.progressed(TRAIN, step, 50, "steps", {"loss": 1.0})
    wait_for(lambda: context.listeners)
    start = time.monotonic()
    finish(curves, tmp_path)
    assert time.monotonic() - start < 60
    assert len(context.listeners) == 1
    assert context.listeners[0].startswith("no live curves: MLflow failed")


def test_nothing_is_sent_to_an_mlflow_that_follows_another_ledger(tmp_path: Path) -> None:
    client = open_client(choose_uri("", None, home=tmp_path))
    client.create_registered_model("replies", tags={OWNER_TAG: "theirs"})
    context = run_of(tmp_path)
    curves = LiveCurves(context)
    curves.progressed(TRAIN, 1, 50, "steps", {"loss": 1.0})
    wait_for(lambda: context.listeners)
    finish(curves, tmp_path)
    assert "no live curves: MLflow's registered model replies belongs to another ledger" in context.listeners[0]
    assert client.get_experiment_by_name("tunegate") is None


def test_a_reused_training_starts_nothing(tmp_path: Path) -> None:
    curves = LiveCurves(run_of(tmp_path))
    curves.started(TRAIN)
    curves.ended(TRAIN, NodeOutcome(Artifact(root=tmp_path), reused=True))
    assert list(tmp_path.iterdir()) == []
