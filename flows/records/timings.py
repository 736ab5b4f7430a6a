"""Figures that a step measures but no digest may depend on: peak memory, seconds. One small file per result.

They are kept outside the store, where equal inputs must give equal bytes.
"""

import orjson

from flows.graph.execute import NodeOutcome, Observer
from flows.graph.graph import Node
from flows.workspace.disk import private_folder
from flows.workspace.settings import Settings
from schemas.artifacts import ENDPOINT_FIGURES, LATENCY_FIGURES
from tasks.storage.files import write_json
from tasks.train.job import MEMORY_FIGURES


class TimingsObserver(Observer):
    """Collects the figures of each step while it runs, and writes them under the key of its result."""

    def __init__(self, settings: Settings) -> None:
        self._home = settings.home
        self._figures: dict[str, dict[str, float]] = {}

    def started(self, node: Node) -> None:
        self._figures[node.name] = {}

    def progressed(self, node: Node, done: int, total: int | None, unit: str, figures: dict[str, float]) -> None:
        names = (*MEMORY_FIGURES, *LATENCY_FIGURES, *ENDPOINT_FIGURES)
        kept = {name: figures[name] for name in names if name in figures}
        self._figures[node.name] |= kept

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        figures = self._figures.pop(node.name, {})
        if figures and not outcome.skipped:
            write_json(private_folder(self._home / "measured" / node.folder) / f"{outcome.key}.json", figures)


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
