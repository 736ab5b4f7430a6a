"""Padding-free tokens, and rotary causal attention over them with its own backward; a shared prefix is stored once.

`Packing` says where each token of a batch is: rows of tokens, the shared prefix first. Linear layers see rows of real
tokens only; attention sees blocks of examples of similar length. Tensors and a `Packing` in, tensors out: it knows
nothing of models. Tests compare attention with plain autograd.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from tasks.model.decoding.fused_layer import rotate
from tasks.train.batches import Batch, ends_of

LIKE = 0.5
"""An example joins a block if it has at least this share of the tokens of the block's longest: in attention, gaps cost
less than many small products."""
LONGEST_BLOCK = 1024
"""With at most this many keys, all attention weights of a layer are held at once; above, torch's blockwise kernel."""


@dataclass(frozen=True)
class Block:
    """Rows with attention that is computed together: a grid of (n_examples, longest) queries."""

    rows: slice
    """Rows of the packing, one example after another."""
    n_examples: int
    longest: int
    n_before: int
    """Leading rows of the packing that every example of the block attends to before its own rows."""
    places: Tensor | None
    """int64 (rows,): index of each row in the flattened grid; None when the grid has no gaps."""


@dataclass(frozen=True)
class Packing:
    """Rows of tokens: [prefix | own tokens of one example | of the next | ...]."""

    n_given: int
    """Leading rows (the whole prefix) that the model has read before: only their keys and values take part."""
    positions: Tensor
    """int64 (n_given + N,): position of each row's token in its example."""
    source: Tensor
    """int64 (N,): index in the batch's flattened (batch, seq) grid, for all rows but the given ones."""
    chosen: Tensor
    """int64 (n,): indices into the N rows of the supervised positions, in the batch's order."""
    blocks: tuple[Block, ...]

    @property
    def longest(self) -> int:
        """Keys that the last token of the longest example sees."""
        return max((block.n_before + block.longest for block in self.blocks), default=0)


def pack(batch: Batch, *, n_prefix: int = 0, given: bool = False) -> Packing:
    """Lay out a batch's supervised examples, each up to its last supervised position.

    Args:
        batch: Padded on the right.
        n_prefix: Number of leading tokens that its supervised examples share, from `shared_prefix`.
        given: The prefix has been read before, so it is not among the rows to compute.
    """
    seq = batch.ids.shape[1]
    ends = ends_of(batch)
    # Longest first; the sort is stable.
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
    """The prefix alone, from an example with loss; none of its tokens is supervised."""
    rows = torch.arange(n_tokens)
    block = Block(slice(0, n_tokens), 1, n_tokens, 0, None)
    return Packing(0, rows, batch.rows[0] * batch.ids.shape[1] + rows, rows[:0], (block,))


def _blocks(lengths: list[int], first: int) -> list[Block]:
    """Blocks of neighbours of similar length; `lengths` are in descending order, the rows begin at `first`."""
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


class Heads(NamedTuple):
    """Shape of an attention layer."""

    queries: int
    keys: int
    """A divisor of `queries`."""
    width: int

    @property
    def groups(self) -> int:
        """Query heads per key head."""
        return self.queries // self.keys


def packed_attention(qkv: Tensor, cos: Tensor, sin: Tensor, packing: Packing, heads: Heads) -> Tensor:
    """Attention of every row but the given ones, (N, queries * width).

    Args:
        qkv: (n_given + N, (queries + 2 * keys) * width): queries, keys and values, concatenated.
        cos: (n_given + N, 1, width), as is `sin`.
        sin: See `cos`.
        packing: Which rows see which.
        heads: Shape.
    """
    if packing.longest <= LONGEST_BLOCK:
        out: Tensor = _PackedAttention.apply(qkv, cos, sin, packing, heads)
        return out
    return _blockwise(qkv, cos, sin, packing, heads)


class _PackedAttention(Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, packing: Packing, heads: Heads) -> Tensor:
        n_turned = heads.queries + heads.keys
        packed = qkv.view(len(qkv), n_turned + heads.keys, heads.width)
        turned = rotate(packed[:, :n_turned], cos, sin)
        out = qkv.new_empty(len(qkv) - packing.n_given, heads.queries * heads.width)
        saved = []
        for block in packing.blocks:
            # Query heads that share a key head are stacked: one matrix product per key head.
            q = _stack(_grid(turned[block.rows, : heads.queries].mul(1 / math.sqrt(heads.width)), block), heads)
            k = _with_prefix(turned[:, heads.queries :], block)
            v = _with_prefix(packed[:, n_turned:], block)
            scores = torch.bmm(q, k.transpose(1, 2))
            each = scores.view(-1, block.longest, scores.shape[-1])
            each[..., block.n_before :].add_(_mask(block, scores))
            weights = torch.softmax(scores, -1)
            out[_answered(block, packing)] = _rows(_unstack(torch.bmm(weights, v), block, heads), block)
            saved += [q, k, v, weights]
        ctx.save_for_backward(cos, sin, *saved)
        ctx.packing, ctx.heads = packing, heads
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin, *saved = ctx.saved_tensors
        packing, heads = ctx.packing, ctx.heads
        n_turned = heads.queries + heads.keys
        # The given rows have no queries.
        turned = grads[0].new_zeros(len(cos), n_turned, heads.width)
        packed = grads[0].new_zeros(len(cos), n_turned + heads.keys, heads.width)
        for number, block in enumerate(packing.blocks):
            q, k, v, weights = saved[4 * number : 4 * number + 4]
            rows = grads[0][_answered(block, packing)].view(-1, heads.queries, heads.width)
            gradient = _stack(_grid(rows, block), heads)
            to_scores = torch._softmax_backward_data(torch.bmm(gradient, v.transpose(1, 2)), weights, -1, weights.dtype)
            to_q = torch.bmm(to_scores, k).mul_(1 / math.sqrt(heads.width))
            turned[block.rows, : heads.queries] = _rows(_unstack(to_q, block, heads), block).view_as(rows)
            _add_keys(turned[:, heads.queries :], torch.bmm(to_scores.transpose(1, 2), q), block, heads)
            _add_keys(packed[:, n_turned:], torch.bmm(weights.transpose(1, 2), gradient), block, heads)
        packed[:, :n_turned] = rotate(turned, cos, -sin)
        return packed.view(len(cos), -1), None, None, None, None


def _answered(block: Block, packing: Packing) -> slice:
    """The block's rows among those being computed."""
    return slice(block.rows.start - packing.n_given, block.rows.stop - packing.n_given)


def _mask(block: Block, like: Tensor) -> Tensor:
    """0 on and below the diagonal, -inf above; no position attends to a later one, so gaps on the right are unseen."""
    return like.new_full((block.longest, block.longest), float("-inf")).triu_(1)


def _grid(rows: Tensor, block: Block) -> Tensor:
    """Rows (n, heads, d) as a grid (n_examples, longest, heads, d), zero in the gaps."""
    shape = (block.n_examples, block.longest, *rows.shape[1:])
    if block.places is None:
        return rows.view(shape) if rows.is_contiguous() else rows.reshape(shape)
    grid = rows.new_zeros(block.n_examples * block.longest, *rows.shape[1:])
    return grid.index_copy_(0, block.places, rows).view(shape)


def _rows(grid: Tensor, block: Block) -> Tensor:
    """The inverse of `_grid`, (n, rest)."""
    flat = grid.reshape(block.n_examples * block.longest, -1)
    return flat if block.places is None else flat.index_select(0, block.places)


def _stack(grid: Tensor, heads: Heads) -> Tensor:
    """(n_examples, longest, queries, d) -> (n_examples * keys, groups * longest, d)."""
    n_examples, longest = grid.shape[:2]
    each = grid.view(n_examples, longest, heads.keys, heads.groups, heads.width)
    return each.permute(0, 2, 3, 1, 4).reshape(-1, heads.groups * longest, heads.width)


def _unstack(stacked: Tensor, block: Block, heads: Heads) -> Tensor:
    """The inverse of `_stack`."""
    each = stacked.view(block.n_examples, heads.keys, heads.groups, block.longest, heads.width)
    return each.permute(0, 3, 1, 2, 4)


def _with_prefix(rows: Tensor, block: Block) -> Tensor:
    """Keys or values of all rows (n, keys, d) -> (n_examples * keys, n_before + longest, d)."""
    own = _grid(rows[block.rows], block).transpose(1, 2)
    if block.n_before:
        before = rows[: block.n_before].transpose(0, 1).expand(block.n_examples, -1, -1, -1)
        own = torch.cat([before, own], 2)
    return own.reshape(-1, block.n_before + block.longest, rows.shape[-1])


def _add_keys(rows: Tensor, gradient: Tensor, block: Block, heads: Heads) -> None:
    """Add the gradient of `_with_prefix`'s result to the gradient of its rows."""
    each = gradient.view(block.n_examples, heads.keys, -1, heads.width).transpose(1, 2)
    own = _rows(each[:, block.n_before :], block).view(-1, heads.keys, heads.width)
    rows[block.rows] += own
    if block.n_before:
        rows[: block.n_before] += each[:, : block.n_before].sum(0)


def _blockwise(qkv: Tensor, cos: Tensor, sin: Tensor, packing: Packing, heads: Heads) -> Tensor:
    """The same with torch's kernel, which never holds all weights at once."""
    packed = qkv.view(len(qkv), -1, heads.width)
    q, k, v = torch.split(packed, [heads.queries, heads.keys, heads.keys], dim=1)
    half = heads.width // 2
    q, k = (x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin for x in (q, k))
    outs = []
    for block in packing.blocks:
        keys, values = (
            _with_prefix(rows, block).view(block.n_examples, heads.keys, -1, heads.width) for rows in (k, v)
        )
        mask = functional.pad(_mask(block, qkv), (block.n_before, 0)) if block.n_before else None
        out = functional.scaled_dot_product_attention(
            _grid(q[block.rows], block).transpose(1, 2),
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=heads.groups > 1,
        )
        outs.append(_rows(out.transpose(1, 2), block))
    return torch.cat(outs)
