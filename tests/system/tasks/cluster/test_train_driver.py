"""Training on a real two-node cluster: the bytes of a training on one machine, whichever process is killed."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import DatasetRef, ModelRef, TrainedRef
from schemas.errors import ConfigError, TrainingError
from schemas.training import AdapterSpec, EarlyStoppingSpec, TrainSpec
from tasks.cluster.connect import connect
from tasks.cluster.train_driver import TrainingOnRay, result_of
from tasks.storage.sealed_folder import MANIFEST
from tasks.train.job import FINAL, PROGRESS, ProgressLog, TrainJob
from tasks.train.launch import THIS_MACHINE, train_model
from tests.support.forked_training import server_with_torch, train_forked
from tests.support.processes import processes_of, wait_for
from tests.support.ray_cluster import TwoNodes
from tests.tasks.train.conftest import write_dataset

SETTINGS: dict[str, Any] = {
    "base_model": "file:tiny",
    "adapter": AdapterSpec(rank=4, alpha=8, dropout=0.2),
    "dtype": "float32",
    "learning_rate": 2e-3,
    "batch_size": 1,
    "epochs": 4,
    "save_every": 1,
    "seed": 3,
    "threads": 1,
}
TrainLocally = Callable[..., bytes]
WORKER = "ray::RayTrainWorker"


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetRef:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def train_locally(dataset: DatasetRef, tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> TrainLocally:
    """Train on this machine; return the manifest."""
    processes = server_with_torch()

    def train(**settings: Any) -> bytes:
        scratch = tmp_path_factory.mktemp("here")
        spec = TrainSpec.model_validate(SETTINGS | settings)
        job = TrainJob(dataset=dataset, model=tiny_model, spec=spec, scratch=scratch, threads=1)
        assert train_forked(processes, job) == 0, (scratch / "worker.log").read_text()
        return (scratch / FINAL / MANIFEST).read_bytes()

    return train


class StopTraining(Exception):  # noqa: N818
    """Raised by a listener to end the run."""


class Training:
    """A training on the cluster in its own folder, started in a thread; keeps progress, result and error."""

    def __init__(
        self, folder: Path, cluster: TwoNodes | None, dataset: DatasetRef, model: ModelRef, *,
        stop_after: int | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        self.scratch, self.out = folder / "scratch", folder / "out"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.out.mkdir(exist_ok=True)
        self.steps: list[int] = []
        self.trained: TrainedRef | None = None
        self.error: BaseException | None = None
        self._arguments = {
            "dataset": dataset,
            "model": model,
            "place": TrainingOnRay(cluster.place) if cluster else THIS_MACHINE,
        }
        self._stop_after = stop_after
        self._spec = TrainSpec.model_validate(SETTINGS | settings)
        self._before = len(self.events())
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.trained = train_model(
                **self._arguments, spec=self._spec, out=self.out, scratch=self.scratch, progress=self.on_progress
            )
        except BaseException as error:
            self.error = error

    def on_progress(self, done: int, total: int | None, unit: str, **figures: float) -> None:
        self.steps.append(done)
        if self._stop_after is not None and done >= self._stop_after:
            raise StopTraining

    def is_running(self) -> bool:
        return self._thread.is_alive()

    def events(self) -> list[dict[str, Any]]:
        """The events of all attempts in this folder."""
        return ProgressLog(self.scratch / PROGRESS).read(0)[0]

    def starts(self) -> list[int]:
        return [event["step"] for event in self.events() if event["event"] == "started"]

    def wait_for(self, event: str, **fields: Any) -> None:
        deadline = time.monotonic() + 600
        while not any(each["event"] == event and fields.items() <= each.items() for each in self.events()):
            assert time.monotonic() < deadline, self.events()
            assert self._thread.is_alive(), self.error
            time.sleep(0.05)

    def end(self) -> None:
        self._thread.join()

    def manifest(self) -> bytes:
        self.end()
        assert self.error is None, f"{self.error}\n{(self.scratch / 'worker.log').read_text()}"
        return (self.scratch / FINAL / MANIFEST).read_bytes()


@pytest.mark.campaign
def test_a_node_killed_in_the_middle_changes_nothing(
    tmp_path: Path, both: TwoNodes, train_locally: TrainLocally, dataset: DatasetRef, tiny_model: ModelRef
) -> None:
    wanted = train_locally(processes=2)
    training = Training(tmp_path, both, dataset, tiny_model, processes=2)
    training.wait_for("kept", step=3)
    both.kill(both.second)
    training.wait_for("lost")
    both.renew_second()
    assert training.manifest() == wanted
    assert training.starts()[0] == 0
    assert training.starts()[1] >= 3
    assert training.steps[-1] == 48
    assert training.trained is not None
    assert training.trained.n_steps == 48
    assert list((both.shared / "trainings").iterdir()) == [], "what the run has is removed from the storage"
    assert not list((both.folder / "cache" / "shared" / "trainings").glob("[!.]*")), "and from the nodes"


@pytest.mark.campaign
def test_a_training_whose_driver_was_killed_resumes_from_the_storage(
    tmp_path: Path, both: TwoNodes, train_locally: TrainLocally, dataset: DatasetRef, tiny_model: ModelRef
) -> None:
    # A checkpoint includes the best weights and the answers to validation tickets.
    settings = {
        "validate_every": 2, "early_stopping": EarlyStoppingSpec(patience=99), "validation_items": 3,
        "validation_max_new_tokens": 6, "epochs": 2,
    }  # fmt: skip
    wanted = train_locally(**settings)
    training = Training(tmp_path, both, dataset, tiny_model, **settings)
    training.wait_for("kept", step=5)
    (driver,) = processes_of(f"tasks.cluster.train_driver {training.scratch}")
    assert processes_of(WORKER)
    os.kill(driver, signal.SIGKILL)
    training.end()
    assert isinstance(training.error, TrainingError)
    assert training.error.code == "TG0405"
    wait_for(lambda: not processes_of(WORKER))  # workers end with their driver
    # As on another machine, without the files of the run's folder.
    again = Training(tmp_path / "again", both, dataset, tiny_model, **settings)
    assert again.manifest() == wanted
    assert again.starts()[0] >= 5
    assert len(again.starts()) == 1


@pytest.mark.filterwarnings("ignore")  # Ray's own warnings, in this process
def test_an_error_of_a_worker_keeps_its_type_and_a_result_without_metrics_is_an_error(
    tmp_path: Path, both: TwoNodes, dataset: DatasetRef, tiny_model: ModelRef
) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    misspelt = Training(tmp_path, both, dataset, tiny_model, adapter=AdapterSpec(target_modules=("q_proj", "v_porj")))
    connect(both.place)
    silent = TorchTrainer(
        lambda: 0,
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="silent", storage_path=str(both.shared / "silent")),
    )
    result = silent.fit()
    assert (result.error, result.return_value) == (None, 0)
    with pytest.raises(TrainingError, match=r"TG0407.*has no metrics"):
        result_of(result)
    misspelt.end()
    assert isinstance(misspelt.error, ConfigError)
    assert misspelt.error.hint == "did you mean `v_proj`?"


def test_more_workers_than_the_nodes_have_room_for_are_refused_before_any_starts(
    tmp_path: Path, both: TwoNodes, dataset: DatasetRef, tiny_model: ModelRef
) -> None:
    too_many = Training(tmp_path, both, dataset, tiny_model, processes=3)
    too_many.end()
    assert isinstance(too_many.error, TrainingError)
    assert too_many.error.code == "TG0416"
    assert "3 workers with 1 CPUs each are needed, the cluster's nodes have room for 2" in too_many.error.message


@pytest.mark.campaign
def test_an_interrupted_training_saves_a_checkpoint_and_resumes(
    tmp_path: Path, both: TwoNodes, train_locally: TrainLocally, dataset: DatasetRef, tiny_model: ModelRef
) -> None:
    training = Training(tmp_path, both, dataset, tiny_model, save_every=10**6, epochs=60, stop_after=5)
    training.end()
    assert isinstance(training.error, StopTraining)
    assert training.events()[-1] == {"event": "ended", "finished": False}
    kept = [event["step"] for event in training.events() if event["event"] == "kept"]
    assert len(kept) == 1
    again = Training(tmp_path, both, dataset, tiny_model, epochs=60)
    assert again.manifest() == train_locally(epochs=60)
    assert again.starts() == [0, kept[0]]


@pytest.mark.campaign
def test_repeatedly_lost_workers_end_the_training(
    tmp_path: Path, both: TwoNodes, dataset: DatasetRef, tiny_model: ModelRef
) -> None:
    training = Training(tmp_path, both, dataset, tiny_model, save_every=10**6, epochs=4000)
    while training.is_running():
        if training.events() and training.events()[-1]["event"] == "step":
            for worker in processes_of(WORKER):
                os.kill(worker, signal.SIGKILL)
        time.sleep(0.5)
    assert isinstance(training.error, TrainingError)
    assert training.error.code == "TG0407"
    assert "lost 4 times in a row without a new checkpoint; the last loss: " in training.error.message
    assert len(training.starts()) >= 4


@pytest.mark.campaign
def test_a_sharded_training_on_two_nodes_gives_the_bytes_of_a_local_one(
    tmp_path: Path, both: TwoNodes, train_locally: TrainLocally, dataset: DatasetRef, tiny_model: ModelRef
) -> None:
    settings = {
        "processes": 2, "sharding": "full", "method": "full", "learning_rate": 1e-3,
        "allow_unusual_learning_rate": True,
    }  # fmt: skip
    training = Training(tmp_path, both, dataset, tiny_model, **settings)
    training.wait_for("kept", step=3)
    both.kill(both.second)
    training.wait_for("lost")
    both.renew_second()
    assert training.manifest() == train_locally(**settings)


@pytest.mark.campaign
@pytest.mark.model
def test_smollm2_trained_on_the_cluster_has_the_bytes_of_one_trained_locally(
    tmp_path: Path, both: TwoNodes, smollm2: ModelRef
) -> None:
    dataset = write_dataset(tmp_path / "dataset", n_train=8, n_validation=2, vocab=40_000)
    settings = {"epochs": 1, "batch_size": 2, "save_every": 1}
    training = Training(tmp_path, both, dataset, smollm2, **settings)
    wanted = Training(tmp_path / "here", None, dataset, smollm2, **settings)
    assert training.manifest() == wanted.manifest()
