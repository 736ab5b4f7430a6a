"""Training as a step: results, errors, deadlines and interruptions, each with a real process on the tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.artifacts import DatasetRef, ModelRef, TrainedRef
from schemas.errors import TrainingError
from schemas.training import TrainSpec
from tasks.train.job import INTERRUPTED
from tasks.train.launch import train_model
from tasks.train.place import ThisMachine

MakeSpec = Callable[..., TrainSpec]


def train_with(dataset: DatasetRef, model: ModelRef, spec: TrainSpec, folder: Path, **more: object) -> TrainedRef:
    out = folder / "out"
    scratch = folder / "scratch"
    out.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(exist_ok=True)
    return train_model(dataset=dataset, model=model, spec=spec, out=out, scratch=scratch, **more)  # type: ignore[arg-type]


def test_a_training_that_cannot_fit_is_refused_before_a_process_starts(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    spec = make_spec(batch_size=2**24, gradient_accumulation_steps=2)
    with pytest.raises(TrainingError, match=r"predicted to need \d{3,}.* GiB, this machine has") as caught:
        train_with(dataset, tiny_model, spec, tmp_path)
    assert caught.value.code == "TG0405"
    assert "this fits: train.batch_size: " in str(caught.value.hint)
    assert not (tmp_path / "scratch" / "worker.log").exists()


def test_a_training_that_was_asked_to_stop_says_how_to_continue(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    class Stopped(ThisMachine):
        def command(self, job_file: Path) -> list[str]:
            return ["sh", "-c", f"exit {INTERRUPTED}"]

    with pytest.raises(TrainingError, match="TG0408"):
        train_with(dataset, tiny_model, make_spec(), tmp_path, place=Stopped())
