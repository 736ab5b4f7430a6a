"""Tells the driver why workers of a training were lost. Runs in the process that Ray controls a training with."""

from __future__ import annotations

from typing import Any

from ray.exceptions import RayError
from ray.train import UserCallback


class Losses(UserCallback):  # type: ignore[misc]
    """Told by Ray after each failure of workers."""

    def __init__(self, box: Any) -> None:
        self._box = box

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Ray's own words, and of other errors the class alone: the rest may quote a ticket."""
        for rank, error in worker_exceptions.items():
            words = next(iter(str(error).splitlines()), "") if isinstance(error, RayError) else ""
            why = type(error).__name__ + (f": {words}" if words else "")
            self._box.tell.remote({"event": "lost", "rank": rank, "why": why})
