"""Where a training asks for what other processes of it have: alone, it is all there.

`Group` is a training in one process; `tasks/train/distributed.py` has those of several. The loop in
tasks/train/engine.py speaks to this interface and knows nothing of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tasks.model.adapter import trainable_tensors
from tasks.train.batches import Batch, Examples
from tasks.train.checkpoint import State, load_newest, save_checkpoint
from tasks.train.forward import Losses, losses_of


class Group:
    """One process that trains alone."""

    size = 1
    """Processes. Each step takes `size * batch_size * gradient_accumulation_steps` examples."""
    rank = 0
    saved: Callable[[Path], None] | None = None
    """Told by the leader of each checkpoint that is complete."""

    @property
    def leads(self) -> bool:
        """Is this the process that writes checkpoints, figures and results?"""
        return self.rank == 0

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model as this process shall hold it; called once, before the optimiser is made."""
        return model

    def finish(self, model: nn.Module, fresh: Callable[[], nn.Module]) -> nn.Module:
        """The trained model as a whole, for the leader to save.

        Args:
            model: As it was trained.
            fresh: Opens the model as it was before training.
        """
        return model

    def losses_of(self, model: nn.Module, *, dtype: torch.dtype, recompute: bool) -> Losses:
        """As `tasks.train.forward.losses_of`."""
        return losses_of(model, dtype=dtype, recompute=recompute)

    def load(
        self, folder: Path, *, key: str, model: nn.Module, optimizer: torch.optim.Optimizer, warn: Callable[[str], None]
    ) -> State | None:
        """As `tasks.train.checkpoint.load_newest`."""
        return load_newest(folder, key=key, weights=trainable_tensors(model), optimizer=optimizer, warn=warn)

    def save(self, folder: Path, state: State, *, key: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """As `tasks.train.checkpoint.save_checkpoint`, by the leader alone; the others help to gather."""
        if self.leads:
            self._write(folder, state, key, trainable_tensors(model), optimizer)

    def _write(
        self, folder: Path, state: State, key: str, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> None:
        written = save_checkpoint(folder, state, key=key, weights=weights, optimizer=optimizer)
        if self.saved is not None:
            self.saved(written)

    def agree(self, step: int, model: nn.Module) -> None:
        """Refuse to go on when processes stand at different steps or hold different weights."""

    def reseed(self, seed: int, step: int) -> None:
        """Give each process dropout of its own; alone, the stream of random numbers simply goes on."""

    def batches(self, examples: Examples, places: Sequence[Sequence[int]]) -> list[Batch]:
        """This process's part of each batch of a step."""
        return [examples.batch(indices) for indices in places]

    def takes(self, batch: Batch) -> bool:
        """Must this batch go through the model? One without supervised tokens adds nothing."""
        return bool(len(batch.targets))

    def total(self, *values: float) -> tuple[float, ...]:
        """Sums over all processes."""
        return values

    def largest(self, value: float) -> float:
        """The largest of all processes' values."""
        return value

    def sum_gradients(self, trained: Sequence[nn.Parameter]) -> None:
        """Make each gradient the sum of all processes' gradients."""

    def clip(self, trained: Sequence[nn.Parameter], limit: float) -> float:
        """Scale all gradients to a common norm of at most `limit`; returns the norm before."""
        return float(nn.utils.clip_grad_norm_(trained, limit))


ALONE = Group()
