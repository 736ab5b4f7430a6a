"""What the training loop works with: model and data, checkpoints, and callbacks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from schemas.training import TrainSpec
from tasks.train.distributed import ALONE, Group
from tasks.train.forward import Losses
from tasks.train.job import ProgressLog
from tasks.train.trunk import Trunk

Answer = Callable[[int], None]
"""Answers validation tickets with the weights of this step, see `tasks.train.answers.Answerer`."""


@dataclass(frozen=True)
class TrainData:
    """Encoded examples; the folders are splits of a `DatasetRef`."""

    train: Path
    validation: Path | None = None
    """None for no validation."""
    trunk: Trunk | None = None
    """Output of the frozen lower layers for both splits, from `tasks.train.trunk.open_trunk`."""


@dataclass(frozen=True)
class Checkpoints:
    """Where a training saves its checkpoints."""

    folder: Path
    key: str
    """Only checkpoints with this key are used, see `tasks.train.job.TrainJob.key`."""


def never() -> bool:
    """Return false: the training is not stopped."""
    return False


@dataclass(frozen=True)
class Hooks:
    """What a training calls."""

    log: ProgressLog
    """Records each step and validation."""
    stop: Callable[[], bool] = never
    """Called after each step; if it returns true, a checkpoint is saved and the training returns unfinished."""
    answer: Answer | None = None
    """Called at each validation."""


@dataclass(frozen=True)
class Loop:
    """A model in training."""

    model: nn.Module
    losses: Losses
    spec: TrainSpec
    group: Group = ALONE
    """The processes that train together; each has its own model."""
