"""Sealed evidence of a gate's checks: what each step measured, before anyone says what is allowed.

A check measures, `tasks/assess/checks.py` judges: another limit measures nothing again. A value that could not be
measured is null, and null never passes.
"""

from __future__ import annotations

from typing import Literal

from schemas.artifacts import Artifact

CheckName = Literal["contamination", "round_trip", "divergence"]


class CheckEvidence(Artifact):
    """`evidence.parquet` or `evidence.json`: the details, without a text of any ticket."""

    check: CheckName
    n_items: int
    """Held-out items, prompts or secrets that were looked at."""
    values: dict[str, float | None]
    """What was measured, by name; null where it could not be."""
    examples: tuple[str, ...] = ()
    """The first few ids behind a bad value."""
