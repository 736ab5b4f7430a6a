"""When a training no longer helps, and the weights from before: kept on disk, and a hard link in each checkpoint.

It knows nothing of how a loss is measured. Used by tasks/train/validation.py.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from schemas.errors import TrainingError
from schemas.training import EarlyStoppingSpec
from tasks.failpoint import reach
from tasks.files import sha256_file

BEST = "best.safetensors"


@dataclass(frozen=True)
class Best:
    """The best validation so far."""

    step: int
    loss: float
    n_worse: int = 0
    """Validations since, none of them better."""
    digest: str = ""
    """sha256 of its weights' file."""


def judged(best: Best | None, *, step: int, loss: float, spec: EarlyStoppingSpec) -> Best:
    """The best after one more validation.

    >>> first = judged(None, step=5, loss=2.0, spec=EarlyStoppingSpec(min_delta=0.1))
    >>> judged(first, step=10, loss=1.95, spec=EarlyStoppingSpec(min_delta=0.1))
    Best(step=5, loss=2.0, n_worse=1, digest='')
    """
    if best is None or loss < best.loss - spec.min_delta:
        return Best(step, loss)
    return replace(best, n_worse=best.n_worse + 1)


class BestWeights:
    """One file beside the checkpoints that holds the weights of the best validation.

    A checkpoint holds a hard link to it. The file is replaced and never rewritten, so that a checkpoint keeps the best
    as it was then, and a training that goes on from it goes on with that.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / BEST

    def keep(self, weights: Mapping[str, Tensor]) -> str:
        """Replace the file by these weights; returns its sha256. What a checkpoint links to is synced with it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f".{BEST}")
        aside.unlink(missing_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, aside)
        aside.rename(self.path)
        reach("train.best.kept")
        return sha256_file(self.path)

    def link_into(self, checkpoint: Path) -> None:
        """Put the file into a checkpoint that is being written."""
        _link(self.path, checkpoint / BEST)

    def take_from(self, checkpoint: Path) -> None:
        """Go back to the best of a verified checkpoint, or to none."""
        self.path.unlink(missing_ok=True)
        if (checkpoint / BEST).exists():
            _link(checkpoint / BEST, self.path)

    def put_back(self, weights: Mapping[str, Tensor], *, digest: str) -> None:
        """Overwrite the weights by those of the file.

        Raises:
            TrainingError: TG0407, the file is gone or damaged.
        """
        if not self.path.exists() or sha256_file(self.path) != digest:
            raise TrainingError(
                "the kept weights of the best validation are damaged",
                code="TG0407",
                where=str(self.path),
                hint="run again: training goes on from its last whole checkpoint",
            )
        saved = load_file(self.path)
        for name, weight in weights.items():
            weight.copy_(saved[name])


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
