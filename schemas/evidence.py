"""Evidence of the gate's checks: what a step measured, without any limit.

A check is measured in one step and judged in another, so that a new limit does not measure again. A value that could
not be measured is null, which never passes.
"""

from schemas.artifacts import Artifact

BATCH_SIZES = (2, 4, 8, 16, 32, 64)
"""Batches that the latency check can time; `batch_8_s` is the mean seconds until a batch of eight is answered."""
LATENCY_FIGURES = (
    "latency_p50_s", "latency_p95_s", "tokens_per_s", "reference_latency_p50_s", "reference_latency_p95_s",
    "reference_tokens_per_s", "usd_per_1k", *(f"batch_{size}_s" for size in BATCH_SIZES),
)  # fmt: skip
"""Figures of the latency check; kept outside the store, since no digest may depend on seconds."""


class CheckEvidence(Artifact):
    """`evidence.parquet` or `evidence.json`: the details, without ticket text."""

    check: str
    """The check's key under `gates`, or divergence, which is part of forgetting."""
    n_items: int
    """Held-out items, prompts or secrets that were checked."""
    values: dict[str, float | None]
    """Measured values by name; null if not measurable."""
    examples: tuple[str, ...] = ()
    """The first few ids of a bad value."""
