"""A checkpoint is loaded only by the model it was written for."""

from pathlib import Path

import pytest
import torch

from schemas.errors import StorageError
from tasks.train.checkpoint import State, load_newest, save_checkpoint


def training(name: str) -> tuple[dict[str, torch.Tensor], torch.optim.Optimizer]:
    """One weight with this name, and its optimizer."""
    weight = torch.nn.Parameter(torch.zeros(2))
    return {name: weight}, torch.optim.AdamW([weight])


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    weights, optimizer = training("one")
    save_checkpoint(tmp_path, State(step=1, n_tokens=1, curve=[]), key="k", weights=weights, optimizer=optimizer)
    weights, optimizer = training("other")
    with pytest.raises(StorageError, match="TG0535"):
        load_newest(tmp_path, key="k", weights=weights, optimizer=optimizer, warn=print)
