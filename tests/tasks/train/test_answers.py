"""Validation tickets are answered during training if the context has room for an answer."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from schemas.artifacts import ModelRef
from schemas.errors import TrainingError
from schemas.training import TrainSpec
from tasks.model.base_model import load_base
from tasks.train.answers import Answerer


def test_validation_tickets_without_room_for_an_answer_are_refused(
    tiny_model: ModelRef, make_spec: Callable[..., TrainSpec], tmp_path: Path
) -> None:
    import datasets

    row = {"ticket_id": "1", "input_ids": [5] * 500, "loss_mask": [0] * 400 + [1] * 100}
    datasets.Dataset.from_list([row]).save_to_disk(str(tmp_path / "validation"))
    spec = make_spec(validation_items=1, validation_max_new_tokens=300)
    model = load_base(tiny_model, dtype=torch.float32)
    with pytest.raises(TrainingError, match="TG0411"):
        Answerer(model, tiny_model, spec, validation=tmp_path / "validation", folder=tmp_path / "answers")
