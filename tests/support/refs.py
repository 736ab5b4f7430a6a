"""References to results that no step made."""

from pathlib import Path
from typing import Any

from schemas.artifacts import TrainedRef


def trained_ref(root: Path, **known: Any) -> TrainedRef:
    """A trained LoRA adapter, with counts that no test reads unless they are given."""
    made_up = {
        "method": "lora", "format": "instruction", "base_digest": "base", "n_trainable": 1, "n_steps": 1, "n_tokens": 1,
        "train_loss": 1.0,
    }  # fmt: skip
    return TrainedRef.model_validate({"root": root, **made_up, **known})
