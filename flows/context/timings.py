"""Figures that a step measures but no digest may depend on: peak memory, seconds. One small file per result.

Outside the store, where equal inputs must give equal bytes. Written by flows/run/open_run.py; read by
flows/champion/run_record.py for MLflow and by `tunegate show`.
"""

from __future__ import annotations

import orjson

from flows.workspace.disk import private_folder
from flows.workspace.settings import Settings
from schemas.evidence import LATENCY_FIGURES
from tasks.files import write_json
from tasks.train.job import MEMORY_FIGURES


class Timings:
    """Collects the figures of one step while it runs."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def record(self, figures: dict[str, float]) -> None:
        """Keep the relevant ones of the figures that a step reports."""
        self.figures |= {name: figures[name] for name in (*MEMORY_FIGURES, *LATENCY_FIGURES) if name in figures}

    def write(self, settings: Settings, step: str, key: str) -> None:
        """Write them next to the store, under the result's key."""
        if self.figures:
            write_json(private_folder(settings.home / "measured" / step) / f"{key}.json", self.figures)


def read_timings(settings: Settings, step: str, key: str) -> dict[str, float]:
    """Return what was measured when this result was made; empty if nothing was."""
    try:
        found: dict[str, float] = orjson.loads((settings.home / "measured" / step / f"{key}.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def memory_sentence(figures: dict[str, float]) -> str | None:
    """Return `2.36 GiB predicted, 2.38 GiB measured (-1 %)`; None if one of the two is missing.

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
