"""Training on a real cluster of two nodes: the bytes of a training on one machine, whoever is killed on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import DatasetRef, ModelRef, TrainedRef
from schemas.training import AdapterSpec, TrainSpec
from tasks.cluster.training import TrainingOnRay
from tasks.files import MANIFEST
from tasks.train.job import FINAL, PROGRESS, ProgressLog
from tasks.train.launch import THIS_MACHINE, train_model
from tasks.train.place import TrainingPlace
from tests.ray_cluster import TwoNodes
from tests.tasks.train.conftest import write_dataset

SETTINGS: dict[str, Any] = {
    "base_model": "file:tiny",
    "adapter": AdapterSpec(rank=4, alpha=8, dropout=0.2),
    "dtype": "float32",
    "learning_rate": 2e-3,
    "batch_size": 4,
    "epochs": 1,
    "save_every": 2,
    "seed": 3,
    "threads": 1,
}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetRef:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


class Training:
    """One training in a folder of its own, in a thread: what it heard, and its result or its error."""

    def __init__(self, folder: Path, dataset: DatasetRef, model: ModelRef, place: TrainingPlace, **settings: Any) -> None:
        self.scratch, self.out = folder / "scratch", folder / "out"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.out.mkdir(exist_ok=True)
        self.heard: list[int] = []
        self.trained: TrainedRef | None = None
        self.error: BaseException | None = None
        self._spec = TrainSpec.model_validate(SETTINGS | settings)
        self._told = {"dataset": dataset, "model": model, "place": place}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.trained = train_model(
                **self._told, spec=self._spec, out=self.out, scratch=self.scratch, progress=self._hear
            )
        except BaseException as error:
            self.error = error

    def _hear(self, done: int, total: int | None, unit: str, **figures: float) -> None:
        self.heard.append(done)

    def wait_for(self, event: str, **fields: Any) -> None:
        deadline = time.monotonic() + 120
        while not any(
            each["event"] == event and fields.items() <= each.items() for each in self.events()
        ):
            assert time.monotonic() < deadline
            assert self._thread.is_alive(), self.error
            time.sleep(0.05)

    def events(self) -> list[dict[str, Any]]:
        return ProgressLog(self.scratch / PROGRESS).read(0)[0]

    def manifest(self) -> bytes:
        self._thread.join()
        assert self.error is None, (self.scratch / "worker.log").read_text()
        return (self.scratch / FINAL / MANIFEST).read_bytes()


def test_a_training_on_the_cluster_gives_the_bytes_of_one_here(
    tmp_path: Path, both: TwoNodes, dataset: DatasetRef, tiny_model: ModelRef
) -> None:
    place = TrainingOnRay(both.place)
    for processes in (1, 2):
        here = Training(tmp_path / f"here-{processes}", dataset, tiny_model, THIS_MACHINE, processes=processes)
        wanted = here.manifest()
        started = time.monotonic()
        there = Training(tmp_path / f"there-{processes}", dataset, tiny_model, place, processes=processes)
        assert there.manifest() == wanted
        print(processes, time.monotonic() - started)
        assert there.heard == here.heard
