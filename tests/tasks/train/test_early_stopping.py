"""The best weights are kept in a file and restored from it."""

from pathlib import Path

import pytest
import torch

from schemas.errors import TrainingError
from tasks.train.early_stopping import BestWeights


def test_damaged_best_weights_are_refused(tmp_path: Path) -> None:
    best, weights = BestWeights(tmp_path), {"one": torch.zeros(2)}
    digest = best.keep(weights)
    best.path.write_bytes(b"")
    with pytest.raises(TrainingError, match="TG0407"):
        best.put_back(weights, digest=digest)
