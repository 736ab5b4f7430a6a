"""Frozen lower layers are computed once, without changing the training."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from schemas.artifacts import DatasetRef, ModelRef
from schemas.errors import ConfigError, TrainingError
from schemas.training import AdapterSpec, TrainSpec
from tasks.model.adapter import open_for_training
from tasks.storage.sealed_folder import MANIFEST
from tasks.train.batches import Batch, Examples
from tasks.train.forward import Losses, losses_of
from tasks.train.job import PROGRESS, ProgressLog, TrainJob
from tasks.train.trunk import Trunk, frozen_layers, open_trunk
from tests.support.trained import shake

MakeSpec = Callable[..., TrainSpec]
TOP = AdapterSpec(rank=4, alpha=8, layers=1)


class Made(NamedTuple):
    """A job, its model, and the trunk of `open_trunk`."""

    job: TrainJob
    model: nn.Module
    log: ProgressLog

    def open(self) -> Trunk | None:
        """Open the trunk."""
        return open_trunk(self.job, self.model, log=self.log)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Events of a kind so far."""
        return [event for event in self.log.read(0)[0] if event["event"] == kind]


@pytest.fixture
def make(tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec) -> Callable[..., Made]:
    """Make a job; keywords are settings."""

    def make(*, trunks: Path | None = None, data: DatasetRef = dataset, **settings: Any) -> Made:
        spec = make_spec(**{"adapter": TOP, **settings})
        job = TrainJob(dataset=data, model=tiny_model, spec=spec, scratch=tmp_path, threads=1, trunks=trunks)
        return Made(job, open_for_training(tiny_model, spec), ProgressLog(tmp_path / PROGRESS))

    return make


def _gradients(model: nn.Module, losses: Losses, batch: Batch) -> tuple[Tensor, Tensor]:
    model.zero_grad()
    with losses.sharing([batch]):
        each = losses(batch)
        each.mean().backward()  # type: ignore[no-untyped-call]
    return each.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({}, 1e-6), ({"method": "qlora"}, 1e-6), ({"dtype": "bfloat16"}, 1e-2)],
    ids=["float32", "qlora", "bfloat16"],
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_cached_trunk_does_not_change_losses_and_gradients(
    make: Callable[..., Made], dataset: DatasetRef, settings: dict[str, Any], tolerance: float, split: str
) -> None:
    made = make(**settings)
    shake(made.model)
    trunk = made.open()
    assert trunk is not None
    losses = losses_of(made.model, dtype=torch.float32, recompute=False)
    indices = [3, 0, 2]
    found = [
        _gradients(made.model, losses, Examples(dataset.root / split, states).batch(indices))
        for states in (trunk.split(split), None)
    ]
    # Products of other shapes are summed in another order: 2^-9 each in bfloat16.
    torch.testing.assert_close(found[0][0], found[1][0], rtol=tolerance, atol=tolerance)
    assert float((found[0][1] - found[1][1]).norm() / found[1][1].norm()) < tolerance


def test_a_prefix_that_all_examples_share_is_stored_once(
    make: Callable[..., Made], tmp_path: Path, make_prefixed: Callable[..., DatasetRef]
) -> None:
    data = make_prefixed(n_prefix=20)
    made = make(data=data)
    trunk = made.open()
    assert trunk is not None
    rows = trunk.split("train")
    assert rows.n_prefix == 20
    assert len(rows.states) == data.n_tokens - 20 * (data.n_train - 1)
    losses = losses_of(made.model, dtype=torch.float32, recompute=False)
    with_trunk, without = (
        _gradients(made.model, losses, Examples(data.root / "train", states).batch([5, 1, 7]))
        for states in (rows, None)
    )
    torch.testing.assert_close(with_trunk, without, rtol=1e-5, atol=1e-6)


def test_later_trainings_with_the_same_key_compute_nothing(make: Callable[..., Made], tmp_path: Path) -> None:
    first, second = make(trunks=tmp_path / "trunks"), make(trunks=tmp_path / "trunks", learning_rate=1e-3, seed=9)
    assert first.open() == second.open()
    assert [event["filled"] for event in first.events("trunk")] == [True, False]


def test_equal_data_give_equal_bytes_and_a_damaged_trunk_is_recomputed(make: Callable[..., Made]) -> None:
    made = make()
    trunk = made.open()
    assert trunk is not None
    sealed = (trunk.root / MANIFEST).read_bytes()
    data = bytearray((trunk.root / "train.bin").read_bytes())
    data[7] ^= 1
    (trunk.root / "train.bin").write_bytes(data)
    assert made.open() == trunk
    assert (trunk.root / MANIFEST).read_bytes() == sealed
    assert [event["filled"] for event in made.events("trunk")] == [True, True]


@pytest.mark.parametrize(
    ("settings", "opened"),
    [
        ({}, True),
        ({"cache_trunk": "off"}, False),
        ({"epochs": 1}, False),
        ({"epochs": 1, "cache_trunk": "on"}, True),
        ({"max_steps": 6}, False),
        ({"adapter": AdapterSpec(rank=4)}, False),
        ({"method": "full", "learning_rate": 1e-4}, False),
    ],
    ids=["two epochs", "off", "one epoch", "on", "less than an epoch", "all layers", "full"],
)
def test_a_trunk_is_cached_if_it_is_read_again(
    make: Callable[..., Made], settings: dict[str, Any], opened: bool
) -> None:
    assert (make(**settings).open() is not None) is opened


def test_with_a_shared_folder_a_trunk_is_cached_for_one_epoch(make: Callable[..., Made], tmp_path: Path) -> None:
    assert make(epochs=1, trunks=tmp_path / "trunks").open() is not None


def test_no_trunk_is_written_to_a_disk_without_room(make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr("tasks.train.trunk.shutil.disk_usage", lambda _: usage)
    made = make()
    assert made.open() is None
    assert "continues without it" in made.events("warning")[0]["message"]
    with pytest.raises(TrainingError, match="TG0423"):
        make(cache_trunk="on").open()


def test_a_model_that_the_fast_path_does_not_support_is_refused_at_once(make: Callable[..., Made]) -> None:
    made = make(cache_trunk="on")
    made.model.config.model_type = "other"  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="TG0111"):
        made.open()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({}, "all layers are adapted"), ({"method": "full", "learning_rate": 1e-5}, "trains every layer")],
    ids=["no top layers", "full"],
)
def test_settings_without_a_frozen_trunk_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainSpec.model_validate({"base_model": "x", "cache_trunk": "on", **settings})


def test_frozen_layers_end_below_the_lowest_trained_layer(make: Callable[..., Made]) -> None:
    assert frozen_layers(make().model) == 1
    assert frozen_layers(make(adapter=AdapterSpec(rank=4)).model) == 0
