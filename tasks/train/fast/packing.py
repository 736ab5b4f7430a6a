"""Where each token of a batch stands when there is no padding: rows of tokens, the shared prefix first and once.

Linear layers see rows of real tokens only; attention sees blocks of examples of like length. It knows nothing of
models. Used by tasks/train/fast/decoder.py and tasks/train/fast/attention.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.train.batches import Batch
from tasks.train.prefix import ends_of

LIKE = 0.5
"""An example joins a block when it has at least this share of the tokens of the block's longest: gaps cost less in
attention than more and smaller products do."""


@dataclass(frozen=True)
class Block:
    """Rows whose attention is computed together: a grid of (n_examples, longest) queries."""

    rows: slice
    """Of the packing, the examples one after another."""
    n_examples: int
    longest: int
    n_before: int
    """Leading rows of the packing that every example of the block looks at before its own rows."""
    places: Tensor | None
    """int64 (rows,): place of each row in the flattened grid; None when the grid has no gaps."""


@dataclass(frozen=True)
class Packing:
    """Rows of tokens: [prefix | own tokens of one example | of the next | ...]."""

    n_given: int
    """Leading rows, all of the prefix, that the model has read before: only their keys and values take part."""
    positions: Tensor
    """int64 (n_given + N,): place of each row's token in its example."""
    source: Tensor
    """int64 (N,): place in the flattened (batch, seq) grid of the batch, for all rows but the given."""
    chosen: Tensor
    """int64 (n,): the N rows' places of the supervised positions, in the batch's order."""
    blocks: tuple[Block, ...]

    @property
    def longest(self) -> int:
        """Keys that the last token of the longest example sees."""
        return max((block.n_before + block.longest for block in self.blocks), default=0)


def pack(batch: Batch, *, n_prefix: int = 0, given: bool = False) -> Packing:
    """Lay out a batch's supervised examples, each up to its last supervised position.

    Args:
        batch: Padded on the right.
        n_prefix: Leading tokens that its supervised examples share, from `shared_prefix`.
        given: The prefix has been read before, so that it is not among the rows to compute.
    """
    seq = batch.ids.shape[1]
    ends = ends_of(batch)
    # Longest first; equal ones stay in order.
    order = [row for row in torch.argsort(ends, descending=True, stable=True).tolist() if ends[row]]
    own = [int(ends[row]) - n_prefix for row in order]
    prefix = torch.arange(n_prefix)
    places = [torch.arange(n_prefix, n_prefix + n_tokens) for n_tokens in own]
    sources = [row * seq + columns for row, columns in zip(order, places, strict=True)]
    if n_prefix and not given:
        sources.insert(0, order[0] * seq + prefix)
    starts = torch.zeros(len(ends), dtype=torch.int64)
    n_rows = 0 if given else n_prefix
    for row, n_tokens in zip(order, own, strict=True):
        starts[row] = n_rows
        n_rows += n_tokens
    blocks = _blocks(own, n_prefix)
    if n_prefix and not given:
        blocks.insert(0, Block(slice(0, n_prefix), 1, n_prefix, 0, None))
    return Packing(
        n_given=n_prefix if given else 0,
        positions=torch.cat([prefix, *places]),
        source=torch.cat(sources),
        chosen=starts[batch.rows] + batch.columns - n_prefix,
        blocks=tuple(blocks),
    )


def pack_prefix(batch: Batch, n_tokens: int) -> Packing:
    """The prefix alone, from an example that carries loss; none of its tokens is supervised."""
    rows = torch.arange(n_tokens)
    block = Block(slice(0, n_tokens), 1, n_tokens, 0, None)
    return Packing(0, rows, batch.rows[0] * batch.ids.shape[1] + rows, rows[:0], (block,))


def _blocks(lengths: list[int], first: int) -> list[Block]:
    """Blocks of neighbours of like length; `lengths` fall, the rows begin at `first`."""
    blocks = []
    start, row = 0, first
    while start < len(lengths):
        longest = lengths[start]
        end = start
        while end < len(lengths) and lengths[end] >= LIKE * longest:
            end += 1
        each = lengths[start:end]
        n_rows = sum(each)
        gaps = n_rows < longest * len(each)
        places = torch.cat([torch.arange(n) + number * longest for number, n in enumerate(each)]) if gaps else None
        blocks.append(Block(slice(row, row + n_rows), len(each), longest, first, places))
        start, row = end, row + n_rows
    return blocks
