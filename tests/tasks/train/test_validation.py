"""Validation during training: when it is due, when it ends the training, and what survives a kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from schemas.artifacts import DatasetRef, ModelRef
from schemas.errors import TrainingError
from schemas.training import EarlyStoppingSpec, TrainSpec
from tasks.files import MANIFEST, seal
from tasks.model.adapter import open_for_training, trainable_tensors
from tasks.train.batches import epoch_batches
from tasks.train.early_stopping import Best, judged
from tasks.train.engine import Outcome, train
from tasks.train.job import CHECKPOINTS, FINAL, PROGRESS, ProgressLog, TrainJob

MakeSpec = Callable[..., TrainSpec]
Run = Callable[..., int | None]
Weights = Mapping[str, torch.Tensor]

STOPPING: dict[str, Any] = {
    "learning_rate": 0.01,
    "allow_unusual_learning_rate": True,
    "lr_scheduler": "constant",
    "warmup_steps": 0,
    "validate_every": 2,
    "early_stopping": EarlyStoppingSpec(patience=2),
    "epochs": 6,
    "save_every": 3,
}
"""Learns for a few steps, then gets worse."""


@dataclass(frozen=True)
class _Poison(ProgressLog):
    """Breaks a weight after the fourth step, as an overflow would."""

    weights: Weights

    def write(self, **entry: Any) -> None:
        super().write(**entry)
        if entry["event"] == "step" and entry["step"] == 4:
            next(iter(self.weights.values())).fill_(float("nan"))


def _train(
    dataset: DatasetRef,
    model: ModelRef,
    spec: TrainSpec,
    folder: Path,
    *,
    validation: bool = True,
    poisoned: bool = False,
) -> tuple[Weights, Outcome]:
    folder.mkdir(exist_ok=True)
    opened = open_for_training(model, spec)
    outcome = train(
        opened,
        spec,
        train_folder=dataset.root / "train",
        validation_folder=dataset.root / "validation" if validation else None,
        checkpoints=folder / CHECKPOINTS,
        key="k",
        log=_Poison(folder / PROGRESS, trainable_tensors(opened)) if poisoned else ProgressLog(folder / PROGRESS),
    )
    return trainable_tensors(opened), outcome


def _validated(outcome: Outcome) -> dict[Any, Any]:
    return {row["step"]: row["validation_loss"] for row in outcome.curve if row["validation_loss"] is not None}


def test_validation_is_due_each_so_many_steps_or_each_epoch_and_at_the_end(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    _, by_steps = _train(dataset, tiny_model, make_spec(validate_every=3, max_steps=8), tmp_path / "steps")
    _, by_epochs = _train(dataset, tiny_model, make_spec(max_steps=8), tmp_path / "epochs")
    assert list(_validated(by_steps)) == [3, 6, 8]
    assert list(_validated(by_epochs)) == [6, 8]
    assert by_steps.validation_loss == _validated(by_steps)[8]


def test_training_ends_when_validation_no_longer_gets_better_and_the_best_weights_are_kept(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    spec = make_spec(**STOPPING)
    weights, outcome = _train(dataset, tiny_model, spec, tmp_path / "whole")
    losses = _validated(outcome)
    best = min(losses, key=losses.get)  # type: ignore[arg-type]
    assert outcome.finished
    assert outcome.kept_step == best
    assert outcome.n_steps == best + 4 < 36
    assert outcome.validation_loss == losses[best]
    # The same training, ended at that step: the very weights.
    until = spec.model_copy(update={"max_steps": best, "early_stopping": None})
    same, _ = _train(dataset, tiny_model, until, tmp_path / "until")
    assert all(torch.equal(weights[name], same[name]) for name in same)


def test_a_delta_makes_small_gains_count_as_none() -> None:
    spec = EarlyStoppingSpec(patience=2, min_delta=0.1)
    best = None
    for step, loss in enumerate([3.0, 2.95, 2.85, 2.8], 1):
        best = judged(best, step=step, loss=loss, spec=spec)
    assert best == Best(step=3, loss=2.85, n_worse=1)


def test_early_stopping_without_validation_is_refused_before_the_first_step(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    with pytest.raises(TrainingError) as caught:
        _train(dataset, tiny_model, make_spec(**STOPPING), tmp_path / "none", validation=False)
    assert caught.value.code == "TG0411"


def test_a_validation_loss_that_is_not_finite_ends_the_training(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.train.validation.validation_loss", lambda *_, **__: float("nan"))
    with pytest.raises(TrainingError, match="loss on validation is nan after step 2") as caught:
        _train(dataset, tiny_model, make_spec(**STOPPING), tmp_path / "nan")
    assert caught.value.code == "TG0409"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_best_weights_survive_kills_and_the_result_is_the_same_bytes(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run, method: str
) -> None:
    rates = {"learning_rate": 7e-3} if method == "full" else {}
    spec = make_spec(**STOPPING | {"method": method, "optimizer": "adamw_8bit"} | rates)
    whole, killed = (
        TrainJob(dataset=dataset, model=tiny_model, spec=spec, scratch=tmp_path / name, threads=1)
        for name in ("whole", "killed")
    )
    assert run(whole) == 0
    told = orjson.loads((whole.scratch / FINAL / "training.json").read_bytes())
    assert told["kept_step"] < told["n_steps"] < 36
    # A better validation is kept that the last checkpoint does not know; a checkpoint is half written; one is complete.
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


def test_answers_are_given_at_each_validation_by_the_weights_of_the_moment_and_change_nothing(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    settings = {"validate_every": 4, "max_steps": 10, "save_every": 3}
    spec = make_spec(**settings, validation_items=3, validation_max_new_tokens=6)
    asked, killed, silent = (
        TrainJob(dataset=dataset, model=tiny_model, spec=each, scratch=tmp_path / name, threads=1)
        for name, each in (("asked", spec), ("killed", spec), ("silent", make_spec(**settings)))
    )
    assert run(asked) == run(silent) == 0
    assert run(killed, "train.checkpoint.renamed:2") == -9
    assert run(killed) == 0
    assert (killed.scratch / FINAL / MANIFEST).read_bytes() == (asked.scratch / FINAL / MANIFEST).read_bytes()
    adapter = "adapter_model.safetensors"
    assert (asked.scratch / FINAL / adapter).read_bytes() == (silent.scratch / FINAL / adapter).read_bytes()
    rows = pq.read_table(asked.scratch / FINAL / "validation_answers.parquet").to_pylist()
    assert [row["step"] for row in rows] == [4, 4, 4, 8, 8, 8, 10, 10, 10]
    assert len({row["item_id"] for row in rows}) == 3
    losses = [sum(row["loss"] for row in rows if row["step"] == step) for step in (4, 10)]
    assert losses[1] < losses[0]


def test_random_batches_hold_every_example_once_and_do_not_look_at_lengths() -> None:
    lengths = [5 + (index * 37) % 90 for index in range(203)]
    grouped, plain = (epoch_batches(lengths, batch_size=8, seed=1, epoch=0, grouped=each) for each in (True, False))
    assert sorted(index for batch in plain for index in batch) == list(range(203))
    padded = [sum(len(batch) * max(lengths[i] for i in batch) for batch in order) for order in (grouped, plain)]
    assert padded[0] < 1.1 * sum(lengths)
    assert padded[1] > 1.4 * sum(lengths)


def test_a_damaged_best_is_never_put_back(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    job = TrainJob(
        dataset=dataset, model=tiny_model, spec=make_spec(**STOPPING), scratch=tmp_path / "scratch", threads=1
    )
    assert run(job, "train.checkpoint.renamed:2") == -9
    path = job.scratch / CHECKPOINTS / "best.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)  # through the hard link, so that the checkpoints with it are damaged too
    assert run(job) == 0
    warned = [e for e in ProgressLog(job.scratch / PROGRESS).read(0)[0] if e["event"] == "warning"]
    assert "damaged" in warned[0]["message"]
    assert seal(job.scratch / FINAL)


def test_after_a_divergence_the_last_finite_checkpoint_stays_and_training_goes_on_from_it(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    spec = make_spec(max_steps=7)
    whole, _ = _train(dataset, tiny_model, spec, tmp_path / "whole")
    with pytest.raises(TrainingError, match=r"diverged at step 5: loss nan.*4 examples: train-"):
        _train(dataset, tiny_model, spec, tmp_path / "broken", poisoned=True)
    (kept,) = (tmp_path / "broken" / CHECKPOINTS).glob("step-*")
    assert kept.name == "step-00000003"
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(kept / "weights.safetensors").values())
    again, _ = _train(dataset, tiny_model, spec, tmp_path / "broken")
    assert all(torch.equal(again[name], whole[name]) for name in whole)
