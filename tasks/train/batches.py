"""Which examples make up which optimiser step, and how they become tensors.

The order is a function of lengths, seed and epoch alone, so that a resumed training needs no more than a step number to
go on with the same examples. It knows nothing of models. Used by tasks/train/engine.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from schemas.errors import DataError

GROUP = 50
"""Batches that are sorted by length together: within them, a batch holds examples of nearly one length."""


class Reached(NamedTuple):
    """How far the examples of a batch have come through the model already."""

    n_layers: int
    """Layers that need not be computed."""
    states: Tensor
    """(batch, seq, d): their output, zero where nothing needs it."""


class States(Protocol):
    """What frozen lower layers made of a split, see tasks/train/trunk.py."""

    def reached(self, indices: Sequence[int], seq: int) -> Reached:
        """States of the examples at these places, padded on the right to `seq`."""


@dataclass(frozen=True)
class Batch:
    """Examples padded on the right to the longest of them."""

    ids: Tensor
    """int64 (batch, seq); padding is 0 and is never looked at."""
    rows: Tensor
    """int64 (n,): row of each position whose next token carries loss."""
    columns: Tensor
    """int64 (n,): its column."""
    targets: Tensor
    """int64 (n,): the next token."""
    n_tokens: int
    """Without padding."""
    ticket_ids: tuple[str, ...]
    reached: Reached | None = None
    """None where all layers are to be computed."""


class Examples:
    """One split of a `DatasetRef`, memory-mapped.

    Args:
        folder: Of the split.
        states: Put into every batch.

    Raises:
        DataError: the folder is not a dataset with the columns of `DatasetRef`.
    """

    def __init__(self, folder: Path, states: States | None = None) -> None:
        import pyarrow.compute as pc
        from datasets import load_from_disk

        self.lengths: list[int] = []
        self._states = states
        try:
            self._table: Any = load_from_disk(str(folder))
            self.lengths = pc.list_value_length(self._table.data.column("input_ids")).to_pylist()
        except IndexError:
            # `datasets` writes no file for no rows, and does not read what it wrote.
            return
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"no readable examples: {type(error).__name__}", code="TG0323", where=str(folder)
            ) from error

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The examples at these places as one batch."""
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
            reached=self._states.reached(indices, longest) if self._states else None,
        )


def epoch_batches(
    lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int, grouped: bool = True
) -> list[list[int]]:
    """Indices of the batches of one epoch: random, but with little padding unless `grouped` is false.

    A random permutation is cut into pieces of `GROUP` batches, each piece is sorted by length and cut into batches, and
    the batches are put in random order.

    >>> epoch_batches([5, 9, 5, 9], batch_size=2, seed=0, epoch=0)
    [[2, 0], [1, 3]]
    """
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(lengths)).tolist()
    if not grouped:
        return [shuffled[start : start + batch_size] for start in range(0, len(shuffled), batch_size)]
    batches = []
    for start in range(0, len(shuffled), GROUP * batch_size):
        # sorted() is stable: examples of one length stay in random order.
        piece = sorted(shuffled[start : start + GROUP * batch_size], key=lambda index: -lengths[index])
        batches += [piece[i : i + batch_size] for i in range(0, len(piece), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def steps_per_epoch(n_examples: int, *, batch_size: int, accumulation: int) -> int:
    """Optimiser steps of one epoch; the last one may be smaller.

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
    first_step: int,
    last_step: int,
    grouped: bool = True,
) -> Iterator[tuple[int, list[list[int]]]]:
    """Step number (from 1) and its batches of indices, for `first_step` to `last_step` inclusive."""
    per_epoch = steps_per_epoch(len(lengths), batch_size=batch_size, accumulation=accumulation)
    for step in range(first_step, last_step + 1):
        epoch, place = divmod(step - 1, per_epoch)
        if place == 0 or step == first_step:
            batches = epoch_batches(lengths, batch_size=batch_size, seed=seed, epoch=epoch, grouped=grouped)
        yield step, batches[place * accumulation : (place + 1) * accumulation]
