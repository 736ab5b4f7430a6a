"""References to trainings to choose from: one scored training, and the choice among several.

Filled in by `tasks/assess/trial.py` and `tasks/assess/choose.py`; declared trainings are in `schemas/choice.py`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from schemas.artifacts import Artifact
from schemas.choice import Setting

ChoiceKind = Literal["ladder", "grid", "optuna"]
TrialState = Literal["chosen", "done", "failed", "not_started"]


class TrialRow(BaseModel):
    """One training that may be chosen: what it changed, how it scored on validation, what it cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    number: int
    """From 1, in the order of the declaration."""
    state: TrialState = "done"
    """`failed`: it diverged, or its model has no finite likelihood. `not_started`: an earlier rung met the target."""
    changes: dict[str, Setting] = {}
    """Path in `train` -> value."""
    value: float | None = None
    """Mean of the metric over the validation items; null when it is not finite or there is none."""
    n_items: int = 0
    met: bool | None = None
    """Did the rung meet the target? Null without a target."""
    bound: float | None = None
    """Confidence bound of the value on the side that the target asks for; null where none could be computed."""
    gain: float | None = None
    """Improvement on the rung before, on the same items; positive is better."""
    gain_lower: float | None = None
    gain_upper: float | None = None
    summary: str = Field(default="", validation_alias=AliasChoices("summary", "told"))
    """The verdict on a rung in words. `told` in what earlier versions wrote."""
    advice: str = ""
    """Set where another round of curation is likelier to pay off than the next rung."""
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
    """Which training is judged by the gate. `ladder.parquet` or `trials.parquet`: one row per training, as `rows`;
    `choice.json` holds all of it."""

    kind: ChoiceKind
    metric: str
    winner: str
    why: str
    met: bool | None = None
    """Did the winner meet the ladder's target? Null for sweeps."""
    rows: tuple[TrialRow, ...]

    @property
    def table(self) -> str:
        """Name of the table, here and in the record of a run."""
        return "ladder.parquet" if self.kind == "ladder" else "trials.parquet"
