"""References to a scored training and to the choice among several.

Created by `tasks/assess/trial.py` and `tasks/assess/choose.py`; declared trainings are in `schemas/choice.py`.
"""

from typing import Literal

from pydantic import Field

from schemas.artifacts import Artifact
from schemas.choice import Setting
from schemas.spec import Frozen

ChoiceKind = Literal["ladder", "grid", "optuna"]
TrialState = Literal["chosen", "done", "failed", "not_started"]


class TrialRow(Frozen):
    """One training to choose from: its changes, its score on validation, its cost."""

    name: str
    number: int
    """From 1, in the order of the declaration."""
    state: TrialState = "done"
    """`failed`: it diverged, or its model has no finite likelihood. `not_started`: an earlier rung met the target."""
    changes: dict[str, Setting] = Field(default={})
    """Path in `train` -> value."""
    value: float | None = None
    """Mean of the metric over the validation items; null if it is not finite or missing."""
    n_items: int = 0
    met: bool | None = None
    """Whether the rung met the target; null without a target."""
    bound: float | None = None
    """Confidence bound of the value on the side of the target; null if it could not be computed."""
    gain: float | None = None
    """Improvement on the previous rung, on the same items; positive is better."""
    gain_lower: float | None = None
    gain_upper: float | None = None
    summary: str = ""
    """The verdict on a rung."""
    advice: str = ""
    """Set if another round of curation is more promising than the next rung."""
    method: str = ""
    base: str = ""
    """Address of the base model."""
    n_examples: int | None = None
    n_trainable: int | None = None
    n_steps: int | None = None
    n_tokens: int | None = None
    """Train tokens processed, all epochs."""
    train_loss: float | None = None
    validation_loss: float | None = None
    memory_bytes: int | None = None
    """Predicted peak memory of a training step."""
    trained: str = ""
    """Digest of the training's result."""


class TrialRef(Artifact):
    """One training scored on the validation items. `values.parquet`: item_id, value of the metric, by item_id."""

    row: TrialRow


class ChoiceRef(Artifact):
    """The training that the gate judges. `ladder.parquet` or `trials.parquet`: one row per training, as `rows`;
    `choice.json` holds all of it."""

    kind: ChoiceKind
    metric: str
    winner: str
    why: str
    met: bool | None = None
    """Whether the winner met the ladder's target; null for sweeps."""
    rows: tuple[TrialRow, ...]

    @property
    def table(self) -> str:
        """Name of the table, here and in the record of a run."""
        return "ladder.parquet" if self.kind == "ladder" else "trials.parquet"
