"""A training killed anywhere and started again ends with the bytes of an uninterrupted one."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from schemas.artifacts import DatasetRef, ModelRef
from schemas.training import AdapterSpec, TrainSpec
from tasks.storage.files import sha256_file
from tasks.storage.sealed_folder import MANIFEST
from tasks.train.job import CHECKPOINTS, ERROR, FINAL, PROGRESS, ProgressLog, TrainJob

MakeSpec = Callable[..., TrainSpec]
Run = Callable[..., int | None]

METHODS = {
    "lora": {"method": "lora", "adapter": AdapterSpec(rank=4, alpha=8, dropout=0.2)},
    "qlora": {"method": "qlora"},
    "full": {"method": "full", "learning_rate": 5e-4},
}


def _job(dataset: DatasetRef, model: ModelRef, spec: TrainSpec, scratch: Path) -> TrainJob:
    return TrainJob(dataset=dataset, model=model, spec=spec, scratch=scratch, threads=1)


def _events(scratch: Path, kind: str) -> list[dict[str, object]]:
    return [event for event in ProgressLog(scratch / PROGRESS).read(0)[0] if event["event"] == kind]


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_training_ends_with_the_bytes_of_an_uninterrupted_one(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run, method: str
) -> None:
    spec = make_spec(**METHODS[method])
    whole = _job(dataset, tiny_model, spec, tmp_path / "whole")
    assert run(whole) == 0
    for place, resumed_at in (("train.checkpoint.renamed:2", 6), ("train.checkpoint.written:2", 3)):
        scratch = tmp_path / place.replace(":", "-")
        killed = _job(dataset, tiny_model, spec, scratch)
        assert run(killed, place) == -9
        assert run(killed) == 0
        assert [event["step"] for event in _events(scratch, "started")] == [0, resumed_at]
        warned = "".join(str(event["message"]) for event in _events(scratch, "warning"))
        assert ("is incomplete" in warned) == ("written" in place)
        assert (scratch / FINAL / MANIFEST).read_bytes() == (whole.scratch / FINAL / MANIFEST).read_bytes()


def test_two_kills_and_gradient_accumulation_change_nothing(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    spec = make_spec(
        batch_size=2, gradient_accumulation_steps=2, save_every=1, adapter=AdapterSpec(rank=4, dropout=0.1), max_steps=7
    )
    whole, killed = (_job(dataset, tiny_model, spec, tmp_path / name) for name in ("whole", "killed"))
    assert run(whole) == 0
    assert run(killed, "train.checkpoint.renamed:2") == -9
    assert run(killed, "train.checkpoint.written:3") == -9
    assert run(killed) == 0
    assert [event["step"] for event in _events(killed.scratch, "started")] == [0, 2, 4]
    assert (killed.scratch / FINAL / MANIFEST).read_bytes() == (whole.scratch / FINAL / MANIFEST).read_bytes()


def test_a_kill_while_the_frozen_trunk_is_computed_changes_nothing(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    spec = make_spec(adapter=AdapterSpec(rank=4, layers=1, dropout=0.1))
    whole, killed = (_job(dataset, tiny_model, spec, tmp_path / name) for name in ("whole", "killed"))
    assert run(whole) == 0
    assert run(killed, "train.trunk.written") == -9
    assert not _events(killed.scratch, "trunk")
    assert run(killed, "train.checkpoint.renamed:2") == -9
    assert run(killed) == 0
    assert [event["filled"] for event in _events(killed.scratch, "trunk")] == [True, False]
    assert (killed.scratch / FINAL / MANIFEST).read_bytes() == (whole.scratch / FINAL / MANIFEST).read_bytes()
    assert not list((killed.scratch / "trunks").glob("*.tmp"))


def test_a_damaged_newest_checkpoint_is_reported_and_the_previous_one_is_used(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    spec = make_spec()
    whole, killed = (_job(dataset, tiny_model, spec, tmp_path / name) for name in ("whole", "killed"))
    assert run(whole) == 0
    assert run(killed, "train.checkpoint.renamed:3") == -9
    newest = max((killed.scratch / CHECKPOINTS).glob("step-*"))
    data = bytearray((newest / "optimizer.safetensors").read_bytes())
    data[-5] ^= 1
    (newest / "optimizer.safetensors").write_bytes(data)
    assert run(killed) == 0
    assert newest.name in str(_events(killed.scratch, "warning")[0]["message"])
    assert [event["step"] for event in _events(killed.scratch, "started")] == [0, 6]
    assert (killed.scratch / FINAL / MANIFEST).read_bytes() == (whole.scratch / FINAL / MANIFEST).read_bytes()


def test_checkpoints_of_other_settings_are_ignored(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    assert run(_job(dataset, tiny_model, make_spec(), tmp_path / "scratch"), "train.checkpoint.renamed") == -9
    assert run(_job(dataset, tiny_model, make_spec(seed=4), tmp_path / "scratch")) == 0
    assert "different settings" in str(_events(tmp_path / "scratch", "warning")[0]["message"])
    assert [event["step"] for event in _events(tmp_path / "scratch", "started")] == [0, 0]


def test_two_checkpoints_are_kept_without_files_that_could_run_code(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    job = _job(dataset, tiny_model, make_spec(), tmp_path / "scratch")
    assert run(job) == 0
    kept = sorted((job.scratch / CHECKPOINTS).iterdir())
    assert [path.name for path in kept] == ["step-00000006", "step-00000009"]
    assert {path.name for path in kept[0].iterdir()} == {
        MANIFEST,
        "optimizer.safetensors",
        "state.json",
        "weights.safetensors",
    }


def test_divergence_is_reported_and_leaves_no_result(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    spec = make_spec(
        learning_rate=1.0,
        allow_unusual_learning_rate=True,
        adapter=AdapterSpec(rank=4, alpha=1e36),
        epochs=4,
        warmup=0.0,
    )
    job = _job(dataset, tiny_model, spec, tmp_path / "scratch")
    assert run(job) == 1
    error = orjson.loads((job.scratch / ERROR).read_bytes())
    assert (error["type"], error["code"]) == ("TrainingError", "TG0401")
    assert "4 examples: train-" in error["message"]
    assert not (job.scratch / FINAL).exists()


def test_out_of_memory_is_reported_with_advice(
    tmp_path: Path, make_dataset: Callable[..., DatasetRef], tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    long = make_dataset(n_train=32, n_validation=0, half_tokens=(500, 505))
    job = _job(long, tiny_model, make_spec(batch_size=32), tmp_path / "scratch")
    assert run(job, more_bytes=700_000_000) == 1
    error = orjson.loads((job.scratch / ERROR).read_bytes())
    assert (error["type"], error["code"]) == ("OutOfMemoryError", "TG0405")
    assert "halve train.batch_size (32)" in error["hint"]


def test_two_processes_never_work_in_one_folder(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    import fcntl

    job = _job(dataset, tiny_model, make_spec(), tmp_path / "scratch")
    job.scratch.mkdir()
    lock = os.open(job.scratch / "worker.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert run(job, lock_wait_s=0.2) == 1
    os.close(lock)
    assert orjson.loads((job.scratch / ERROR).read_bytes())["type"] == "LockedError"


@pytest.mark.campaign
@pytest.mark.model
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_the_real_model_is_resumed_bit_for_bit(
    tmp_path: Path,
    smollm2: ModelRef,
    make_dataset: Callable[..., DatasetRef],
    make_spec: MakeSpec,
    run: Run,
    method: str,
) -> None:
    """Killed after a step and, for adapters, again while a checkpoint is saved."""
    full = method == "full"  # its checkpoints have 1.6 GB, so there is only one
    data = make_dataset(n_train=2 if full else 3, n_validation=0, vocab=40000)
    settings = {"method": method, "learning_rate": 5e-5 if full else 2e-4, "batch_size": 1, "epochs": 1}
    spec = make_spec(**settings, save_every=1, adapter=AdapterSpec(rank=8, dropout=0.05), dtype="auto")
    unsaved = spec.model_copy(update={"save_every": 20})
    whole, killed = (
        _job(data, smollm2, each, tmp_path / name) for name, each in (("whole", unsaved), ("killed", spec))
    )
    assert run(whole) == 0
    assert run(killed, "train.checkpoint.renamed") == -9
    if not full:
        assert run(killed, "train.checkpoint.written") == -9
    assert run(killed) == 0
    assert {event["step"] for event in _events(killed.scratch, "started")} == {0, 1}
    weights = "model.safetensors" if full else "adapter_model.safetensors"
    assert sha256_file(whole.scratch / FINAL / weights) == sha256_file(killed.scratch / FINAL / weights)
    for folder in (whole.scratch, killed.scratch):
        shutil.rmtree(folder)
