"""Sealed evidence of a gate's checks: what each step measured, before anyone says what is allowed.

A check measures in one step, and is judged in another: another limit measures nothing again. A value that could not be
measured is null, and null never passes.
"""

from __future__ import annotations

from schemas.artifacts import Artifact

LATENCY_FIGURES = (
    "latency_p50_s", "latency_p95_s", "tokens_per_s", "reference_latency_p50_s", "reference_latency_p95_s",
    "reference_tokens_per_s", "usd_per_1k",
)  # fmt: skip
"""What the latency check measures and reports; kept beside the store, since no digest may depend on seconds."""


class CheckEvidence(Artifact):
    """`evidence.parquet` or `evidence.json`: the details, without a text of any ticket."""

    check: str
    """Which check measured: its key under `gates`, or divergence, a part of forgetting."""
    n_items: int
    """Held-out items, prompts or secrets that were looked at."""
    values: dict[str, float | None]
    """What was measured, by name; null where it could not be."""
    examples: tuple[str, ...] = ()
    """The first few ids behind a bad value."""
