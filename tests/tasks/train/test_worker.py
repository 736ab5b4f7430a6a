"""Only one training process works in a folder at a time."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from schemas.artifacts import DatasetRef, ModelRef
from schemas.training import TrainSpec
from tasks.storage.files import write_json
from tasks.train.job import ERROR, JOB, TrainJob
from tasks.train.worker import main


def test_a_second_training_in_one_folder_is_refused(
    dataset: DatasetRef, tiny_model: ModelRef, make_spec: Callable[..., TrainSpec], tmp_path: Path
) -> None:
    job = TrainJob(dataset=dataset, model=tiny_model, spec=make_spec(), scratch=tmp_path, threads=1)
    write_json(tmp_path / JOB, job.model_dump(mode="json"))

    def run(*_: object) -> int:
        pytest.fail("the second process would train")

    with (tmp_path / "worker.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(tmp_path / JOB, lock_wait_s=0.0, run=run) == 1
    assert orjson.loads((tmp_path / ERROR).read_bytes())["code"] == "TG0520"
