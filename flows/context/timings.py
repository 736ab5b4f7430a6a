"""What a step measured of itself that no digest may depend on: memory at its peak, seconds. One small file per result.

Beside the store, since equal inputs must give equal bytes there. Written by flows/run/open_run.py; read by
flows/champion/mlflow_sync.py for MLflow and by `tunegate show`.
"""

from __future__ import annotations

import orjson

from flows.workspace.disk import private_folder
from flows.workspace.settings import Settings
from schemas.evidence import LATENCY_FIGURES
from tasks.files import write_json
from tasks.train.job import MEMORY_FIGURES


class Measured:
    """Collects the figures of one step while it runs."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def hear(self, figures: dict[str, float]) -> None:
        """Keep those that count, of all that a step reports."""
        self.figures |= {name: figures[name] for name in (*MEMORY_FIGURES, *LATENCY_FIGURES) if name in figures}

    def keep(self, settings: Settings, step: str, key: str) -> None:
        """Write them down beside the store, under the result's key."""
        if self.figures:
            write_json(private_folder(settings.home / "measured" / step) / f"{key}.json", self.figures)


def read_measured(settings: Settings, step: str, key: str) -> dict[str, float]:
    """What was measured when this result was made; empty when nothing was."""
    try:
        found: dict[str, float] = orjson.loads((settings.home / "measured" / step / f"{key}.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def memory_sentence(figures: dict[str, float]) -> str | None:
    """`2.36 GiB predicted, 2.38 GiB measured (-1 %)`; None when one of the two is missing.

    >>> memory_sentence({"predicted_memory_bytes": 2**31, "peak_memory_bytes": 2.5 * 2**30})
    '2.00 GiB predicted, 2.50 GiB measured (-20 %)'
    """
    predicted, peak = (figures.get(name) for name in MEMORY_FIGURES)
    if not predicted or not peak:
        return None
    return (
        f"{predicted / 2**30:.2f} GiB predicted, {peak / 2**30:.2f} GiB measured ({predicted / peak - 1:+.0%})".replace(
            "%", " %"
        )
    )
