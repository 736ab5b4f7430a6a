"""Batches answered by actors of a real cluster: the bytes of one process, even if actors are killed."""

import os
import signal
from pathlib import Path

import pytest

from schemas.artifacts import ModelRef, TrainedRef
from schemas.errors import DataError, TrainingError
from schemas.evaluation import DecodingSpec
from schemas.training import TrainSpec
from tasks.cluster.answers import AnsweringOnRay
from tasks.model.generate import IN_THIS_PROCESS, BatchAnswering, generate_answers
from tasks.storage.files import sha256_file
from tasks.storage.sealed_folder import seal
from tests.support.processes import processes_of
from tests.support.ray_cluster import TwoNodes
from tests.support.refs import trained_ref
from tests.support.trained import save_perturbed
from tests.tasks.model.test_generate import prompt_set

DECODING = DecodingSpec(max_new_tokens=24, batch_size=1, threads=1, dtype="float32")
ACTOR = "ray::AnswerActor"


@pytest.fixture
def trained(tmp_path: Path, tiny_model: ModelRef) -> TrainedRef:
    """A sealed adapter with random weights, as after training."""
    spec = TrainSpec(base_model="file:tiny", dtype="float32")
    trained = save_perturbed(tiny_model, spec, tmp_path / "trained", size=0.3)
    (trained.root / "curves.parquet").write_bytes(b"")
    return trained.model_copy(update={"digest": seal(trained.root)})


class AnsweredBatches:
    """Answers to one set of prompts, in its own folder."""

    def __init__(self, folder: Path, model: ModelRef, trained: TrainedRef | None, answering: BatchAnswering) -> None:
        self.seen: list[set[int]] = []
        self.killed: set[int] = set()
        self._kill = answering is not IN_THIS_PROCESS
        for name in ("out", "scratch"):
            (folder / name).mkdir(parents=True)
        found = generate_answers(
            prompts=prompt_set(folder / "prompts", n=7), model=model, trained=trained, decoding=DECODING,
            out=folder / "out", scratch=folder / "scratch", answering=answering, progress=self.on_progress,
        )  # fmt: skip
        self.digest = sha256_file(found.root / "predictions.parquet")

    def on_progress(self, done: int, total: int | None, unit: str, **figures: float) -> None:
        """Kill all actors after the second batch, so that batches in progress are lost."""
        self.seen.append(set(processes_of(ACTOR)))
        if done == 2 and self._kill:
            self.killed = set(processes_of(ACTOR))
            for process in self.killed:
                os.kill(process, signal.SIGKILL)


def test_actors_give_the_answers_of_one_process_even_if_they_are_killed(
    tmp_path: Path, both: TwoNodes, tiny_model: ModelRef, trained: TrainedRef
) -> None:
    wanted = AnsweredBatches(tmp_path / "here", tiny_model, trained, IN_THIS_PROCESS)
    on_cluster = AnsweredBatches(tmp_path / "there", tiny_model, trained, AnsweringOnRay(both.place))
    assert on_cluster.digest == wanted.digest
    assert on_cluster.killed
    assert any(seen - on_cluster.killed for seen in on_cluster.seen[2:]), "new actors answered the rest"
    left = {path.name for path in both.shared.iterdir()}
    assert not any((both.shared / name / "adapter_model.safetensors").exists() for name in left)


def test_an_error_of_an_actor_keeps_its_type_and_code(tmp_path: Path, both: TwoNodes, tiny_model: ModelRef) -> None:
    other = tiny_model.model_copy(update={"digest": "0" * 64})
    trained = trained_ref(tiny_model.root, digest="1" * 64, base_digest="2" * 64)
    with pytest.raises((TrainingError, DataError), match="TG0403"):
        AnsweredBatches(tmp_path, other, trained, AnsweringOnRay(both.place))


@pytest.mark.campaign
def test_a_batch_that_kills_each_of_its_processes_fails(
    tmp_path: Path, both: TwoNodes, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.cluster.answers.RETRIES", 0)
    with pytest.raises(TrainingError, match=r"TG0407.*were lost 1 times"):
        AnsweredBatches(tmp_path, tiny_model, None, AnsweringOnRay(both.place))


def test_threads_that_no_node_has_are_refused(tmp_path: Path, both: TwoNodes, tiny_model: ModelRef) -> None:
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    with pytest.raises(
        TrainingError, match="1 workers with 3 CPUs each are needed, the cluster's nodes have room for 0"
    ):
        generate_answers(
            prompts=prompt_set(tmp_path / "prompts"), model=tiny_model,
            decoding=DECODING.model_copy(update={"threads": 3, "batch_size": 16}),  # one batch with all threads
            out=tmp_path / "out", scratch=tmp_path / "scratch",
            answering=AnsweringOnRay(both.place),
        )  # fmt: skip
