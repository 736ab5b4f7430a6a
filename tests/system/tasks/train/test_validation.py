"""Validation during training: when it is due, when it ends the training, and what survives a kill."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from schemas.artifacts import DatasetRef, ModelRef
from tasks.storage.sealed_folder import MANIFEST, seal
from tasks.train.job import CHECKPOINTS, FINAL, PROGRESS, ProgressLog, TrainJob
from tests.tasks.train.test_validation import STOPPING, MakeSpec

Run = Callable[..., int | None]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_best_weights_survive_kills_and_the_result_has_the_same_bytes(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run, method: str
) -> None:
    rates = {"learning_rate": 7e-3} if method == "full" else {}
    spec = make_spec(**STOPPING | {"method": method, "optimizer": "adamw_8bit"} | rates)
    whole, killed = (
        TrainJob(dataset=dataset, model=tiny_model, spec=spec, scratch=tmp_path / name, threads=1)
        for name in ("whole", "killed")
    )
    assert run(whole) == 0
    training = orjson.loads((whole.scratch / FINAL / "training.json").read_bytes())
    assert training["kept_step"] < training["n_steps"] < 36
    # Kills: better weights kept after the last checkpoint; a checkpoint half written; a checkpoint complete.
    assert run(killed, "train.best.kept:2") == -9
    assert run(killed, "train.checkpoint.written") == -9
    assert run(killed, "train.checkpoint.renamed") == -9
    assert run(killed) == 0
    assert (killed.scratch / FINAL / MANIFEST).read_bytes() == (whole.scratch / FINAL / MANIFEST).read_bytes()


def test_eight_bit_moments_are_kept_exactly(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    spec = make_spec(method="full", learning_rate=5e-4, optimizer="adamw_8bit", weight_decay=0.01)
    whole, killed = (
        TrainJob(dataset=dataset, model=tiny_model, spec=spec, scratch=tmp_path / name, threads=1)
        for name in ("whole", "killed")
    )
    assert run(whole) == 0
    assert run(killed, "train.checkpoint.renamed:2") == -9
    moments = load_file(max((killed.scratch / CHECKPOINTS).glob("step-*")) / "optimizer.safetensors")
    assert {str(tensor.dtype) for name, tensor in moments.items() if name.startswith("state1/")} == {
        "torch.uint8",
        "torch.float32",
    }
    assert run(killed) == 0
    assert (killed.scratch / FINAL / MANIFEST).read_bytes() == (whole.scratch / FINAL / MANIFEST).read_bytes()


def test_each_validation_answers_with_the_current_weights_and_changes_nothing(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    settings = {"validate_every": 4, "max_steps": 10, "save_every": 3}
    spec = make_spec(**settings, validation_items=3, validation_max_new_tokens=6)
    answering, killed, silent = (
        TrainJob(dataset=dataset, model=tiny_model, spec=each, scratch=tmp_path / name, threads=1)
        for name, each in (("answering", spec), ("killed", spec), ("silent", make_spec(**settings)))
    )
    assert run(answering) == run(silent) == 0
    assert run(killed, "train.checkpoint.renamed:2") == -9
    assert run(killed) == 0
    assert (killed.scratch / FINAL / MANIFEST).read_bytes() == (answering.scratch / FINAL / MANIFEST).read_bytes()
    adapter = "adapter_model.safetensors"
    assert (answering.scratch / FINAL / adapter).read_bytes() == (silent.scratch / FINAL / adapter).read_bytes()
    rows = pq.read_table(answering.scratch / FINAL / "validation_answers.parquet").to_pylist()
    assert [row["step"] for row in rows] == [4, 4, 4, 8, 8, 8, 10, 10, 10]
    assert len({row["item_id"] for row in rows}) == 3
    losses = [sum(row["loss"] for row in rows if row["step"] == step) for step in (4, 10)]
    assert losses[1] < losses[0]


def test_a_damaged_best_is_never_restored(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    job = TrainJob(
        dataset=dataset, model=tiny_model, spec=make_spec(**STOPPING), scratch=tmp_path / "scratch", threads=1
    )
    assert run(job, "train.checkpoint.renamed:2") == -9
    path = job.scratch / CHECKPOINTS / "best.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)  # also damages the checkpoints, which have a hard link to it
    assert run(job) == 0
    warned = [e for e in ProgressLog(job.scratch / PROGRESS).read(0)[0] if e["event"] == "warning"]
    assert "damaged" in warned[0]["message"]
    assert seal(job.scratch / FINAL)
