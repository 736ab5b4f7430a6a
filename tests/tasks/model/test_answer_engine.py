"""A lack of memory while answering is named as one."""

from __future__ import annotations

import pytest
import torch

from schemas.errors import TrainingError
from tasks.model.answer_engine import memory_told


def test_a_batch_beyond_the_memory_is_an_error_of_ours() -> None:
    with pytest.raises(TrainingError, match="TG0405"), memory_told():
        torch.empty(2**60, dtype=torch.float32)
