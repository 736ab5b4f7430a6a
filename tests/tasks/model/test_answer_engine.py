"""Running out of memory while answering is reported as such."""

import pytest
import torch

from schemas.errors import TrainingError
from tasks.model.answer_engine import translate_memory_errors


def test_a_batch_that_exceeds_the_memory_raises_our_own_error() -> None:
    with pytest.raises(TrainingError, match="TG0405"), translate_memory_errors():
        torch.empty(2**60, dtype=torch.float32)
