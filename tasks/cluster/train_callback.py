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
        """For progress the class, and Ray's own words; a traceback may quote a ticket and goes to the log alone."""
        for rank, error in worker_exceptions.items():
            inner = getattr(error, "_base_exc", error)
            words = next(iter(str(inner).splitlines()), "") if isinstance(inner, RayError) else ""
            why = type(inner).__name__ + (f": {words}" if words else "")
            self._box.tell.remote({"event": "lost", "rank": rank, "why": why, "trace": f"worker {rank}: {error}\n"})
