"""What a data ablation found: one training per way of curating, on the same held-out items with equal steps.

`flows/ablation.py` runs the arms, `tasks/assess/ablation.py` fills the table in; `tunegate advise` reads it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Gain = Literal["helps", "harms", "not shown", "no item differs", "not judged"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AblationRow(_Part):
    """One arm beside the curated one."""

    arm: str
    """`curated`, `raw`, `raw-k`, `without-STEP`."""
    told: str
    """What its tickets went through, in words."""
    n_rows: int | None = None
    """Train tickets that its curation left."""
    n_examples: int | None = None
    """Of those, what was trained on."""
    n_steps: int | None = None
    value: float | None = None
    """Mean of the metric on the held-out items."""
    difference: float | None = None
    """curated - arm: what curation, or the step, gains."""
    lower: float | None = None
    upper: float | None = None
    """One-sided confidence bounds of the difference, at `confidence`."""
    won: int | None = None
    """Items on which the curated arm is better."""
    lost: int | None = None
    gain: Gain | None = None
    """Does the curation that this arm lacks help? Null for the curated arm itself."""
    reason: str = ""
    trained: str = ""
    """Digest of its weights."""


class AblationTable(_Part):
    """All arms, and the answer."""

    pipeline: str
    metric: str
    n_items: int
    n_steps: int
    seed: int
    confidence: float
    """Of each bound, after all comparisons have shared the error probability."""
    items: str
    """Digest of the held-out items."""
    rows: tuple[AblationRow, ...]
    answer: str
    """Is quality the lever here? One sentence."""
