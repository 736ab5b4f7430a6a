"""The tokens that all examples of a step start with: the model reads them once for all examples.

They are found in the token ids themselves, whether they come from a system prompt, a chat template's header or a stock
opening. It knows nothing of models. Used by tasks/train/fast/decoder.py and tasks/train/forward.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.train.batches import Batch

SHORTEST = 8
"""Shorter prefixes (in tokens) are not worth sharing."""
_STEADY_ROPE = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose angles do not depend on the length of the text."""


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
