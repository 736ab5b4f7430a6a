"""The training loop: batches in a fixed order, loss on supervised tokens, checkpoints, a stop at the first NaN."""

import math
import random
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from schemas.errors import DataError, TrainingError
from schemas.training import TrainSpec
from tasks.model.base_model import resolve_dtype
from tasks.train.batches import Batch, Examples, step_batches, steps_per_epoch
from tasks.train.checkpoint import State
from tasks.train.distributed import ALONE, Group
from tasks.train.loop import Checkpoints, Hooks, Loop, TrainData
from tasks.train.optimizer import learning_rate_at, make_optimizer
from tasks.train.validation import Validator


@dataclass(frozen=True)
class TrainingOutcome:
    """The result of a training."""

    n_steps: int
    """Optimiser steps done; fewer than planned when early stopping ended the training."""
    n_tokens: int
    curve: list[dict[str, float | int | None]]
    """One row per step: step, loss, learning_rate, grad_norm, n_tokens, validation_loss."""
    finished: bool
    """False when it was stopped; a checkpoint holds the work done so far."""
    kept_step: int
    """Step whose weights the model has: the last, or with early stopping the step of the best validation."""

    @property
    def validation_loss(self) -> float | None:
        """Validation loss of the weights that the model has; None when they were not validated."""
        return next((row["validation_loss"] for row in self.curve if row["step"] == self.kept_step), None)


def count_steps(n_examples: int, spec: TrainSpec) -> int:
    """Optimiser steps of a whole training."""
    batch_size = spec.batch_size * spec.processes
    each = steps_per_epoch(n_examples, batch_size=batch_size, accumulation=spec.gradient_accumulation_steps)
    return min(each * spec.epochs, spec.max_steps or each * spec.epochs)


def train(
    model: nn.Module, spec: TrainSpec, *, data: TrainData, checkpoints: Checkpoints, hooks: Hooks, group: Group = ALONE
) -> TrainingOutcome:
    """Train `model` in place, from the newest checkpoint if there is one; equal inputs give equal weights.

    An optimiser step uses the gradient of the mean loss over all its supervised tokens, however it is split into
    batches. A step whose loss or gradient is not finite changes nothing and ends the training.

    Args:
        model: From `tasks.model.adapter.open_for_training`.
        spec: The settings.
        data: The validation split's mean loss is measured as often as `validate_every` says, and at the end.
        checkpoints: The newest of them is the start.
        hooks: Called during the training.
        group: The processes that train together; each calls this with its own model.

    Raises:
        TrainingError: loss or gradient (TG0401), or the loss on validation (TG0401), not finite.
        DataError: no examples, or a step without any supervised token.
    """
    _seed(spec.seed)
    trunk, log = data.trunk, hooks.log
    examples = Examples(data.train, trunk.split("train") if trunk else None)
    if not len(examples):
        raise DataError("no training examples", code="TG0308", where=str(data.train))
    held_out = None
    if data.validation is not None:
        held_out = Examples(data.validation, trunk.split("validation") if trunk else None)
    losses = group.losses_of(model, dtype=resolve_dtype(spec.dtype), recompute=spec.gradient_checkpointing)
    loop = Loop(model, losses, spec, group)
    optimizer = make_optimizer(model, spec)
    batch_size = spec.batch_size * group.size
    accumulation = spec.gradient_accumulation_steps
    n_steps = count_steps(len(examples), spec)
    per_epoch = steps_per_epoch(len(examples), batch_size=batch_size, accumulation=accumulation)
    state = group.load(
        checkpoints.folder,
        key=checkpoints.key,
        model=model,
        optimizer=optimizer,
        warn=lambda message: log.write(event="warning", message=message),
    )
    done, n_tokens, curve = (state.step, state.n_tokens, list(state.curve)) if state else (0, 0, [])
    group.check_in_step(done, model)
    validator = Validator(
        loop, held_out, per_epoch=per_epoch, n_steps=n_steps, checkpoints=checkpoints.folder, hooks=hooks
    )
    validator.best = state.best if state else None
    log.write(event="started", step=done, n_steps=n_steps)
    order = step_batches(
        examples.lengths,
        batch_size=batch_size,
        accumulation=accumulation,
        seed=spec.seed,
        grouped=spec.batching == "length_grouped",
        steps=range(done + 1, n_steps + 1),
    )
    for step, places in order:
        started = time.monotonic()
        group.reseed(spec.seed, step)
        batches = group.batches(examples, places)
        rate = learning_rate_at(step, spec, n_steps=n_steps)
        loss, norm = _step(loop, optimizer, batches, step=step, rate=rate)
        step_tokens = int(*group.total(sum(batch.n_tokens for batch in batches)))
        n_tokens += step_tokens
        row: dict[str, float | int | None] = {
            "step": step,
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": norm,
            "n_tokens": n_tokens,
            "validation_loss": None,
        }
        seconds = time.monotonic() - started
        log.write(event="step", n_steps=n_steps, step_tokens=step_tokens, seconds=seconds, **row)
        row["validation_loss"] = validator.after(step)
        curve.append(row)
        if step == n_steps or validator.is_over():
            break
        stopping = group.total(hooks.stop())[0] > 0
        if stopping or step % spec.save_every == 0:
            state = State(step=step, n_tokens=n_tokens, curve=curve, best=validator.best)
            group.save(checkpoints.folder, state, key=checkpoints.key, model=model, optimizer=optimizer)
        if stopping:
            return TrainingOutcome(len(curve), n_tokens, curve, finished=False, kept_step=step)
    kept_step = validator.finish(len(curve))
    return TrainingOutcome(len(curve), n_tokens, curve, finished=True, kept_step=kept_step)


def _step(
    loop: Loop, optimizer: torch.optim.Optimizer, batches: Sequence[Batch], *, step: int, rate: float
) -> tuple[float, float]:
    """One optimiser step; returns mean loss (nats per supervised token) and the gradient's norm before clipping."""
    losses, group = loop.losses, loop.group
    trained = [parameter for parameter in loop.model.parameters() if parameter.requires_grad]
    n_supervised = int(*group.total(sum(len(batch.targets) for batch in batches)))
    if not n_supervised:
        raise DataError(f"no supervised token in the examples of step {step}", code="TG0308")
    # Stays on the device: reading each batch's loss would make the CPU wait for the card before it sends the next.
    sums = torch.zeros((), dtype=torch.float64, device=trained[0].device)
    with losses.sharing(batches) if batches else nullcontext():
        for batch in batches:
            if group.needs(batch):
                part = losses(batch).sum() / n_supervised
                sums += part.detach()
                part.backward()  # type: ignore[no-untyped-call]
    group.sum_gradients(trained)
    (total,) = group.total(float(sums))
    norm = group.clip(trained, loop.spec.max_grad_norm)
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise _diverged(step, total, norm, batches, rate)
    for settings in optimizer.param_groups:
        settings["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, norm


def _diverged(step: int, loss: float, norm: float, batches: Sequence[Batch], rate: float) -> TrainingError:
    names = [name for batch in batches for name in batch.ticket_ids]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return TrainingError(
        f"training diverged at step {step}: loss {loss:g}, gradient norm {norm:g}, learning rate {rate:.3g}; "
        f"{len(names)} examples: {shown}",
        code="TG0401",
        where=f"step {step}",
        hint="lower train.learning_rate, or raise train.warmup; nothing of this training is kept as a result",
    )


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # Otherwise torch fills every new tensor with NaN first, to reveal reads of unwritten memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def mean_last_tenth(curve: Sequence[dict[str, float | int | None]]) -> float:
    """Mean loss over the last tenth of the steps, at least one."""
    last = [float(row["loss"] or 0.0) for row in curve[-max(1, len(curve) // 10) :]]
    return sum(last) / len(last)
