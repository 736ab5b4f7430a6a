"""A training's folder on one node, which its workers there share and which goes when they have ended.

What a killed training left behind (token ids of tickets, checkpoints) goes when the next training begins on the node.
It knows nothing of ray. Used by tasks/cluster/train_part.py.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tasks.cluster.shared import node_cache


class NodeFolder:
    """`root` is there inside the block.

    Args:
        key: Of the training.
        trainings: Where trainings of this node have their folders.
    """

    def __init__(self, key: str, *, trainings: Path | None = None) -> None:
        self._trainings = trainings or node_cache() / "trainings"
        self.root = self._trainings / key[:16]

    def __enter__(self) -> NodeFolder:
        self._trainings.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._in_use = _open(_lock_of(self.root))
        fcntl.flock(self._in_use, fcntl.LOCK_SH)
        for other in self._trainings.iterdir():
            if other.is_dir() and other != self.root:
                _remove_unused(other)
        self.root.mkdir(exist_ok=True, mode=0o700)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._in_use)
        _remove_unused(self.root)  # the last worker of the node does it

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """A folder that the first worker of the node makes, complete or not at all; the others wait for it."""
        place = self.root / name
        making = _open(self.root / f".{name}.lock")
        try:
            fcntl.flock(making, fcntl.LOCK_EX)
            if not place.is_dir():
                make(place)
        finally:
            os.close(making)
        return place


def _remove_unused(folder: Path) -> None:
    """Remove a training's folder unless a process has it in use."""
    lock = _open(_lock_of(folder))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
