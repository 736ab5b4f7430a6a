"""An actor between the driver of a training and its workers: figures and errors go one way, the wish to stop the other.

It lives on the driver's node and ends with the driver. It knows nothing of ray. Made by tasks/cluster/train_driver.py.
"""

from __future__ import annotations

from typing import Any

from tasks.cluster.errors import Failed


class Mailbox:
    """Holds what was told until it is taken."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []
        self._failed: Failed | None = None
        self._stopping = False

    def tell(self, entry: dict[str, Any]) -> None:
        """An entry of `tasks.train.job.ProgressLog`, or `crash` (rank, trace), which is for the driver's log alone."""
        self._entries.append(entry)

    def fail(self, failed: Failed) -> None:
        """An error that would come again. The first one counts: the others' may follow from it."""
        self._failed = self._failed or failed

    def take(self) -> tuple[list[dict[str, Any]], Failed | None]:
        """What was told since the last time, and the error if there is one."""
        entries, self._entries = self._entries, []
        return entries, self._failed

    def stop(self) -> None:
        """Workers shall save a checkpoint and end."""
        self._stopping = True

    def stopping(self) -> bool:
        """Shall they?"""
        return self._stopping
