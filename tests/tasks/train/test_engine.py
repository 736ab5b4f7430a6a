"""The training loop: order, gradients of a step, divergence, validation, weight decay."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from schemas.artifacts import DatasetRef, ModelRef
from schemas.errors import DataError, TrainingError
from schemas.training import AdapterSpec, TrainSpec
from tasks.model.adapter import open_for_training, trainable_tensors
from tasks.train.batches import Examples, epoch_batches, step_batches
from tasks.train.engine import TrainingOutcome, count_steps, train
from tasks.train.forward import losses_of
from tasks.train.job import ProgressLog
from tasks.train.loop import Checkpoints, Hooks, TrainData
from tasks.train.optimizer import learning_rate_at, make_optimizer
from tasks.train.validation import validation_loss
from tests.support.trained import shake

MakeSpec = Callable[..., TrainSpec]


def _train(
    dataset: DatasetRef, model: ModelRef, spec: TrainSpec, folder: Path
) -> tuple[dict[str, torch.Tensor], TrainingOutcome]:
    opened = open_for_training(model, spec)
    outcome = train(
        opened,
        spec,
        data=TrainData(dataset.root / "train"),
        checkpoints=Checkpoints(folder / "checkpoints", key=""),
        hooks=Hooks(ProgressLog(folder / "progress.jsonl")),
    )
    return trainable_tensors(opened), outcome


def test_accumulated_batches_train_like_one_large_batch(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    settings = {"max_steps": 1, "warmup": 0.0, "max_grad_norm": 1e9}
    one, _ = _train(dataset, tiny_model, make_spec(batch_size=24, **settings), tmp_path / "one")
    two, _ = _train(
        dataset, tiny_model, make_spec(batch_size=4, gradient_accumulation_steps=6, **settings), tmp_path / "two"
    )
    # Adam's first step is nearly the gradient's sign, so rounding alone changes tiny gradients.
    differing = sum(int((~torch.isclose(one[name], two[name], atol=1e-4)).sum()) for name in one)
    assert differing < 0.01 * sum(tensor.numel() for tensor in one.values())


def test_every_example_is_seen_once_per_epoch_in_another_order_and_with_little_padding() -> None:
    lengths = [5 + (index * 37) % 90 for index in range(203)]
    orders = [epoch_batches(lengths, batch_size=8, seed=1, epoch=epoch) for epoch in range(2)]
    for order in orders:
        assert sorted(index for batch in order for index in batch) == list(range(203))
        padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in order)
        assert padded < 1.08 * sum(lengths)
    assert orders[0] != orders[1]
    assert orders[0] == epoch_batches(lengths, batch_size=8, seed=1, epoch=0)


def test_a_resumed_order_is_the_rest_of_the_full_order() -> None:
    lengths = list(range(10, 33))
    whole = list(step_batches(lengths, batch_size=4, accumulation=2, seed=5, steps=range(1, 10)))
    assert [step for step, _ in whole] == list(range(1, 10))
    assert list(step_batches(lengths, batch_size=4, accumulation=2, seed=5, steps=range(6, 10))) == whole[5:]


def test_steps_are_counted_over_epochs_and_capped() -> None:
    spec = TrainSpec(base_model="x", batch_size=4, gradient_accumulation_steps=2, epochs=3)
    assert count_steps(23, spec) == 9
    assert count_steps(23, spec.model_copy(update={"max_steps": 4})) == 4


@pytest.mark.parametrize(("scheduler", "last"), [("constant", 1.0), ("linear", 0.1), ("cosine", 0.02447174)])
def test_the_learning_rate_warms_up_and_ends_above_zero(scheduler: str, last: float) -> None:
    spec = TrainSpec.model_validate(
        {"base_model": "x", "learning_rate": 1.0, "allow_unusual_learning_rate": True, "warmup": 0.1,
         "lr_scheduler": scheduler}
    )  # fmt: skip
    rates = [learning_rate_at(step, spec, n_steps=11) for step in range(1, 12)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[-1] == pytest.approx(last)
    assert all(rate > 0 for rate in rates)


def test_norms_do_not_decay(tiny_model: ModelRef, make_spec: MakeSpec) -> None:
    model = open_for_training(tiny_model, make_spec(method="full", learning_rate=1e-4, weight_decay=0.1))
    decay = {
        tuple(parameter.shape): group["weight_decay"]
        for group in make_optimizer(model, make_spec(weight_decay=0.1)).param_groups
        for parameter in group["params"]
    }
    assert decay[(64,)] == 0.0
    assert decay[(128, 64)] == 0.1


def test_a_loss_that_is_not_finite_ends_the_training_without_changing_weights(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    spec = make_spec(
        learning_rate=1.0,
        allow_unusual_learning_rate=True,
        adapter=AdapterSpec(rank=4, alpha=1e36),
        epochs=4,
        warmup=0.0,
    )
    with pytest.raises(TrainingError, match=r"TG0401.*diverged at step \d+: .*4 examples: train-\d{4}") as caught:
        _train(dataset, tiny_model, spec, tmp_path)
    assert "learning_rate" in str(caught.value.hint)
    steps = [entry for entry in ProgressLog(tmp_path / "progress.jsonl").read(0)[0] if entry["event"] == "step"]
    assert all(math.isfinite(entry["loss"]) for entry in steps)


def test_validation_is_the_mean_over_tokens_without_dropout_and_keeps_training_mode(
    dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    spec = make_spec(method="qlora", adapter=AdapterSpec(rank=4, dropout=0.5))
    model = shake(open_for_training(tiny_model, spec))
    losses = losses_of(model, dtype=torch.float32, recompute=False)
    examples = Examples(dataset.root / "validation")
    first = validation_loss(model, losses, examples, batch_size=3)
    assert validation_loss(model, losses, examples, batch_size=1) == pytest.approx(first, rel=1e-5)
    assert all(module.training for module in model.modules())
    noisy = losses(examples.batch(range(4)))
    assert float(noisy.detach().mean()) != pytest.approx(first, rel=1e-5)
    noisy.mean().backward()  # type: ignore[no-untyped-call]


def test_a_data_set_without_examples_is_an_error(
    tmp_path: Path, tiny_model: ModelRef, make_spec: MakeSpec, make_dataset: Callable[..., DatasetRef]
) -> None:
    with pytest.raises(DataError, match="TG0308"):
        _train(make_dataset(n_train=0), tiny_model, make_spec(), tmp_path)


def test_a_step_without_supervised_tokens_is_refused(
    tmp_path: Path, tiny_model: ModelRef, make_spec: MakeSpec, make_dataset: Callable[..., DatasetRef]
) -> None:
    without_answers = make_dataset(half_tokens=(0, 0), n_prefix=4)
    with pytest.raises(DataError, match="TG0308"):
        _train(without_answers, tiny_model, make_spec(), tmp_path)
