"""Validation during training: when it is due, when it ends the training, and what survives a kill."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from schemas.artifacts import DatasetRef, ModelRef
from schemas.errors import TrainingError
from schemas.training import EarlyStoppingSpec, TrainSpec
from tasks.model.adapter import open_for_training, trainable_tensors
from tasks.train.base_fit import check_validation
from tasks.train.batches import epoch_batches
from tasks.train.early_stopping import Best, update_best
from tasks.train.engine import TrainingOutcome, train
from tasks.train.job import CHECKPOINTS, PROGRESS, ProgressLog
from tasks.train.loop import Checkpoints, Hooks, TrainData

MakeSpec = Callable[..., TrainSpec]
Weights = Mapping[str, torch.Tensor]

STOPPING: dict[str, Any] = {
    "learning_rate": 0.01,
    "allow_unusual_learning_rate": True,
    "lr_scheduler": "constant",
    "warmup": 0,
    "validate_every": 2,
    "early_stopping": EarlyStoppingSpec(patience=2),
    "epochs": 6,
    "save_every": 3,
}
"""Learns for a few steps, then gets worse."""


@dataclass(frozen=True)
class _Poison(ProgressLog):
    """Corrupts a weight after the fourth step, like an overflow."""

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
) -> tuple[Weights, TrainingOutcome]:
    folder.mkdir(exist_ok=True)
    opened = open_for_training(model, spec)
    outcome = train(
        opened,
        spec,
        data=TrainData(dataset.root / "train", dataset.root / "validation" if validation else None),
        checkpoints=Checkpoints(folder / CHECKPOINTS, key="k"),
        hooks=Hooks(
            _Poison(folder / PROGRESS, trainable_tensors(opened)) if poisoned else ProgressLog(folder / PROGRESS)
        ),
    )
    return trainable_tensors(opened), outcome


def _validated(outcome: TrainingOutcome) -> dict[Any, Any]:
    return {row["step"]: row["validation_loss"] for row in outcome.curve if row["validation_loss"] is not None}


def test_validation_is_due_every_n_steps_or_every_epoch_and_at_the_end(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    _, by_steps = _train(dataset, tiny_model, make_spec(validate_every=3, max_steps=8), tmp_path / "steps")
    _, by_epochs = _train(dataset, tiny_model, make_spec(max_steps=8), tmp_path / "epochs")
    assert list(_validated(by_steps)) == [3, 6, 8]
    assert list(_validated(by_epochs)) == [6, 8]
    assert by_steps.validation_loss == _validated(by_steps)[8]


def test_training_ends_when_validation_stops_improving_and_the_best_weights_are_kept(
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
    # The same training stopped at that step has the same weights.
    until = spec.model_copy(update={"max_steps": best, "early_stopping": None})
    same, _ = _train(dataset, tiny_model, until, tmp_path / "until")
    assert all(torch.equal(weights[name], same[name]) for name in same)


def test_gains_below_the_delta_do_not_count() -> None:
    spec = EarlyStoppingSpec(patience=2, min_delta=0.1)
    best = None
    for step, loss in enumerate([3.0, 2.95, 2.85, 2.8], 1):
        best = update_best(best, step=step, loss=loss, spec=spec)
    assert best == Best(step=3, loss=2.85, n_worse=1)


def test_early_stopping_without_validation_is_refused_before_the_first_step(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    with pytest.raises(TrainingError, match="TG0411"):
        _train(dataset, tiny_model, make_spec(**STOPPING), tmp_path / "none", validation=False)


def test_a_validation_loss_that_is_not_finite_ends_the_training(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.train.validation.validation_loss", lambda *_, **__: float("nan"))
    with pytest.raises(TrainingError, match=r"TG0401.*validation loss is nan after step 2"):
        _train(dataset, tiny_model, make_spec(**STOPPING), tmp_path / "nan")


def test_random_batches_have_every_example_once_and_ignore_lengths() -> None:
    lengths = [5 + (index * 37) % 90 for index in range(203)]
    grouped, plain = (epoch_batches(lengths, batch_size=8, seed=1, epoch=0, grouped=each) for each in (True, False))
    assert sorted(index for batch in plain for index in batch) == list(range(203))
    padded = [sum(len(batch) * max(lengths[i] for i in batch) for batch in order) for order in (grouped, plain)]
    assert padded[0] < 1.1 * sum(lengths)
    assert padded[1] > 1.4 * sum(lengths)


def test_after_a_divergence_training_resumes_from_the_last_finite_checkpoint(
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


def test_a_training_without_room_for_its_validation_is_found_before_it_starts(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef
) -> None:
    def check(n_validation: int, *, max_new_tokens: int = 4) -> None:
        given = dataset.model_copy(update={"n_validation": n_validation})
        check_validation(tmp_path, dataset=given, model=tiny_model, validation_items=2, max_new_tokens=max_new_tokens)

    check(dataset.n_validation)
    with pytest.raises(TrainingError, match=r"TG0411.*there are none"):
        check(0)
    with pytest.raises(TrainingError, match=r"TG0411.*no validation ticket leaves room"):
        check(dataset.n_validation, max_new_tokens=tiny_model.context_length - 1)
