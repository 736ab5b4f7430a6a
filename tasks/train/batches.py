"""Which examples form each optimiser step, and how they become tensors.

The order depends on lengths, seed and epoch alone, so a resumed training needs only a step number to continue with the
same examples. `shared_prefix` finds the tokens that all examples of a step start with, in the token ids themselves,
whether they come from a system prompt, a chat template's header or a stock opening: a model reads them once.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from schemas.errors import DataError

GROUP = 50
"""Batches that are sorted by length together, so that each holds examples of similar length."""
SHORTEST = 8
"""Shorter prefixes (in tokens) are not worth sharing."""
_STEADY_ROPE = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose angles do not depend on the length of the text."""


class LayerOutput(NamedTuple):
    """Output of the lower layers for the examples of a batch, computed earlier."""

    n_layers: int
    """Layers that need not be computed again."""
    states: Tensor
    """(batch, seq, d): their output, zero where it is not needed."""


class TrunkStates(Protocol):
    """Output of the frozen lower layers for a split, see tasks/train/trunk.py."""

    def take(self, indices: Sequence[int], seq: int) -> LayerOutput:
        """Output for the examples at these indices, padded on the right to `seq`."""


@dataclass(frozen=True)
class Batch:
    """Examples, padded on the right to the longest."""

    ids: Tensor
    """int64 (batch, seq); padding is 0 and is never read."""
    rows: Tensor
    """int64 (n,): row of each position before a supervised token."""
    columns: Tensor
    """int64 (n,): its column."""
    targets: Tensor
    """int64 (n,): the next token."""
    n_tokens: int
    """Without padding."""
    ticket_ids: tuple[str, ...]
    precomputed: LayerOutput | None = None
    """None when all layers must be computed."""


class Examples:
    """One split of a `DatasetRef`, memory-mapped.

    Args:
        folder: The split's folder.
        states: Added to every batch.

    Raises:
        DataError: the folder is not a dataset with the columns of `DatasetRef`.
    """

    def __init__(self, folder: Path, states: TrunkStates | None = None) -> None:
        import pyarrow.compute as pc
        from datasets import load_from_disk

        self.lengths: list[int] = []
        self._states = states
        try:
            self._table: Any = load_from_disk(str(folder))
            self.lengths = pc.list_value_length(self._table.data.column("input_ids")).to_pylist()
        except IndexError:
            # `datasets` writes no file for an empty split and cannot read back what it wrote.
            return
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"no readable examples: {type(error).__name__}", code="TG0323", where=str(folder)
            ) from error

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The examples at these indices as one batch."""
        chosen = self._table[list(indices)]
        longest = max(self.lengths[index] for index in indices)
        ids = np.zeros((len(indices), longest), dtype=np.int64)
        carries_loss = np.zeros_like(ids, dtype=bool)
        for row, (tokens, mask) in enumerate(zip(chosen["input_ids"], chosen["loss_mask"], strict=True)):
            ids[row, : len(tokens)] = tokens
            carries_loss[row, : len(mask)] = mask
        # The first token has no predecessor that could predict it.
        rows, columns = np.nonzero(carries_loss[:, 1:])
        return Batch(
            ids=torch.from_numpy(ids),
            rows=torch.from_numpy(rows),
            columns=torch.from_numpy(columns),
            targets=torch.from_numpy(ids[rows, columns + 1]),
            n_tokens=sum(self.lengths[index] for index in indices),
            ticket_ids=tuple(str(name) for name in chosen["ticket_id"]),
            precomputed=self._states.take(indices, longest) if self._states else None,
        )


def epoch_batches(
    lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int, grouped: bool = True
) -> list[list[int]]:
    """Indices of one epoch's batches: in random order, with little padding unless `grouped` is false.

    Cuts a random permutation into pieces of `GROUP` batches, sorts each piece by length, cuts it into batches and
    shuffles the batches.

    >>> epoch_batches([5, 9, 5, 9], batch_size=2, seed=0, epoch=0)
    [[2, 0], [1, 3]]
    """
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(lengths)).tolist()
    if not grouped:
        return [shuffled[start : start + batch_size] for start in range(0, len(shuffled), batch_size)]
    batches = []
    for start in range(0, len(shuffled), GROUP * batch_size):
        # sorted() is stable: examples of equal length stay in random order.
        piece = sorted(shuffled[start : start + GROUP * batch_size], key=lambda index: -lengths[index])
        batches += [piece[i : i + batch_size] for i in range(0, len(piece), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def steps_per_epoch(n_examples: int, *, batch_size: int, accumulation: int) -> int:
    """Optimiser steps per epoch; the last may be smaller.

    >>> steps_per_epoch(33, batch_size=8, accumulation=2)
    3
    """
    n_batches = math.ceil(n_examples / batch_size)
    return math.ceil(n_batches / accumulation)


def step_batches(
    lengths: Sequence[int],
    *,
    batch_size: int,
    accumulation: int,
    seed: int,
    steps: range,
    grouped: bool = True,
) -> Iterator[tuple[int, list[list[int]]]]:
    """Yield each of these step numbers, which count from 1, with its batches of indices."""
    per_epoch = steps_per_epoch(len(lengths), batch_size=batch_size, accumulation=accumulation)
    for step in steps:
        epoch, place = divmod(step - 1, per_epoch)
        if place == 0 or step == steps.start:
            batches = epoch_batches(lengths, batch_size=batch_size, seed=seed, epoch=epoch, grouped=grouped)
        yield step, batches[place * accumulation : (place + 1) * accumulation]


def shared_prefix(batches: Iterable[Batch]) -> int:
    """Number of leading tokens that all examples of these batches share and that predict no supervised token.

    0 when there are fewer than `SHORTEST`, or when only one example has loss. Examples without loss are ignored.
    """
    first: Tensor | None = None
    n_examples = 0
    shared = 0
    for batch in batches:
        rows = torch.unique(batch.rows)
        if not len(rows):
            continue
        n_examples += len(rows)
        ids = batch.ids[rows]
        if first is None:
            first, shared = ids[0], ids.shape[1]
        # Padding after an example's end may look like a token, so the supervised columns set the limit.
        shared = min(shared, ids.shape[1], int(batch.columns.min()))
        same = (ids[:, :shared] == first[:shared]).all(0)
        shared = int(same.long().cumprod(0).sum())
    return shared if n_examples > 1 and shared >= SHORTEST else 0


def ends_of(batch: Batch) -> Tensor:
    """Number of columns of each example up to the last that predicts a supervised token (batch,); 0 where none does.

    Later columns change no loss.
    """
    ends = torch.zeros(len(batch.ids), dtype=torch.int64)
    return ends.scatter_reduce_(0, batch.rows, batch.columns + 1, "amax")


def has_steady_positions(config: Any) -> bool:
    """Whether a position's angles are the same for texts of any length."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, Mapping))]
    return all(kind.get("rope_type", "default") in _STEADY_ROPE for kind in kinds)


def backward_through(read: Sequence[Tensor], given: Sequence[Tensor]) -> None:
    """Send the gradients collected at `given`, detached copies of `read`, through the graph of `read`."""
    reached = [(one, copy.grad) for one, copy in zip(read, given, strict=True) if copy.grad is not None]
    if reached:
        torch.autograd.backward([one for one, _ in reached], [gradient for _, gradient in reached])
