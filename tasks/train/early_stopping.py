"""Early stopping: the best validation so far and its weights, kept on disk and hard-linked into each checkpoint."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from schemas.errors import TrainingError
from schemas.training import EarlyStoppingSpec
from tasks.storage.failpoint import reach
from tasks.storage.files import sha256_file

BEST = "best.safetensors"


@dataclass(frozen=True)
class Best:
    """The best validation so far."""

    step: int
    loss: float
    n_worse: int = 0
    """Validations since then, none of them better."""
    digest: str = ""
    """sha256 of the file with its weights."""


def update_best(best: Best | None, *, step: int, loss: float, spec: EarlyStoppingSpec) -> Best:
    """The best after one more validation.

    >>> first = update_best(None, step=5, loss=2.0, spec=EarlyStoppingSpec(min_delta=0.1))
    >>> update_best(first, step=10, loss=1.95, spec=EarlyStoppingSpec(min_delta=0.1))
    Best(step=5, loss=2.0, n_worse=1, digest='')
    """
    if best is None or loss < best.loss - spec.min_delta:
        return Best(step, loss)
    return replace(best, n_worse=best.n_worse + 1)


class BestWeights:
    """One file in the checkpoints' folder with the weights of the best validation.

    Each checkpoint holds a hard link to it. The file is replaced and never rewritten, so a checkpoint keeps the best
    weights of its time, and a training that resumes from it uses those.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / BEST

    def keep(self, weights: Mapping[str, Tensor]) -> str:
        """Replace the file with these weights; returns its sha256. Sealing a checkpoint syncs the file it links to."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f".{BEST}")
        aside.unlink(missing_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, aside)
        aside.rename(self.path)
        reach("train.best.kept")
        return sha256_file(self.path)

    def link_into(self, checkpoint: Path) -> None:
        """Link the file into a checkpoint that is being written."""
        _link(self.path, checkpoint / BEST)

    def take_from(self, checkpoint: Path) -> None:
        """Restore the best weights of a verified checkpoint, or none."""
        self.path.unlink(missing_ok=True)
        if (checkpoint / BEST).exists():
            _link(checkpoint / BEST, self.path)

    def put_back(self, weights: Mapping[str, Tensor], *, digest: str) -> None:
        """Overwrite the weights with those of the file.

        Raises:
            TrainingError: TG0407, the file is missing or damaged.
        """
        if not self.path.exists() or sha256_file(self.path) != digest:
            raise TrainingError(
                "the kept weights of the best validation are damaged",
                code="TG0407",
                where=str(self.path),
                hint="run again: training resumes from its last complete checkpoint",
            )
        saved = load_file(self.path)
        for name, weight in weights.items():
            weight.copy_(saved[name])


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
