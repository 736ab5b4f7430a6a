"""The validation split during training: its loss, answers to some of its tickets, and early stopping.

The test split is never read. `tasks/assess/validation.py` scores the answers after training.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from schemas.errors import TrainingError
from tasks.model.adapter import trainable_tensors
from tasks.train.answers import no_validation_error
from tasks.train.batches import Examples
from tasks.train.distributed import ALONE, Group
from tasks.train.early_stopping import Best, BestWeights, update_best
from tasks.train.forward import Losses
from tasks.train.loop import Hooks, Loop


class Validator:
    """Validates after the steps that are due; with early stopping it keeps the best weights.

    Args:
        loop: Its model is in train mode, and left in it; its processes share the validation split, and the leader keeps
            the best weights.
        examples: The validation split; None or empty for no validation.
        per_epoch: Optimiser steps per epoch.
        n_steps: Optimiser steps of the whole training.
        checkpoints: Folder for the best weights.
        hooks: Called at each validation.

    Raises:
        TrainingError: TG0411, early stopping without validation examples.
    """

    def __init__(
        self,
        loop: Loop,
        examples: Examples | None,
        *,
        per_epoch: int,
        n_steps: int,
        checkpoints: Path,
        hooks: Hooks,
    ) -> None:
        spec = loop.spec
        self.examples = examples if examples is not None and len(examples) else None
        if spec.early_stopping is not None and self.examples is None:
            raise no_validation_error()
        self.best: Best | None = None
        self._model, self._losses, self._spec, self._group = loop.model, loop.losses, spec, loop.group
        self._weights = trainable_tensors(loop.model)
        self._every = per_epoch if spec.validate_every == "epoch" else spec.validate_every
        self._n_steps, self._log, self._answer = n_steps, hooks.log, hooks.answer
        self._kept = BestWeights(checkpoints)

    def after(self, step: int) -> float | None:
        """Validate if due after this step; returns the validation loss, or None.

        Raises:
            TrainingError: TG0401, the loss is not finite.
        """
        if self.examples is None or (step % self._every and step != self._n_steps):
            return None
        batch_size = self._spec.batch_size * self._group.size
        loss = validation_loss(self._model, self._losses, self.examples, batch_size=batch_size, group=self._group)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the validation loss is {loss:g} after step {step}",
                code="TG0401",
                where=f"step {step}",
                hint="lower train.learning_rate, or lengthen the warm-up; nothing of this training is kept as a result",
            )
        self._log.write(event="validation", step=step, loss=loss)
        if self._spec.early_stopping is not None:
            self.best = update_best(self.best, step=step, loss=loss, spec=self._spec.early_stopping)
            if self.best.step == step and self._group.leads:
                self.best = replace(self.best, digest=self._kept.keep(self._weights))
        if self._answer is not None:
            with without_dropout(self._model):
                self._answer(step)
        return loss

    def is_over(self) -> bool:
        """Whether validation has failed to improve as often as `patience` allows."""
        stopping = self._spec.early_stopping
        return stopping is not None and self.best is not None and self.best.n_worse >= stopping.patience

    def finish(self, step: int) -> int:
        """After the last step, give the model the weights of the best validation, if any were kept.

        Returns:
            The step that made the model's present weights.
        """
        if self.best is None or self.best.step == step:
            return step
        if self._group.leads:  # only the leader saves weights
            self._kept.put_back(self._weights, digest=self.best.digest)
        self._log.write(event="restored", step=self.best.step, loss=self.best.loss)
        return self.best.step


def validation_loss(
    model: nn.Module, losses: Losses, examples: Examples, *, batch_size: int, group: Group = ALONE
) -> float:
    """Mean loss over all supervised tokens of a split, nats, without dropout; restores the model's mode."""
    by_length = sorted(range(len(examples)), key=lambda index: -examples.lengths[index])
    total, count = 0.0, 0
    with without_dropout(model), torch.no_grad():
        for start in range(0, len(by_length), batch_size):
            for batch in group.batches(examples, [by_length[start : start + batch_size]]):
                with losses.sharing([batch]):
                    each = losses(batch)
                total += float(each.double().sum())
                count += len(each)
    nats, n_scored = group.total(total, count)
    return nats / n_scored if n_scored else math.nan


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Eval mode, except for 4-bit layers: bitsandbytes repacks those for inference, and they could not train again."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    for module, training in before:
        if type(module).__name__ == "Linear4bit":
            module.training = training
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
