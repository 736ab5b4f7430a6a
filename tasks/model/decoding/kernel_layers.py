"""New columns of a batch through all layers on a CPU, in bfloat16: products by torch, all between them by kernels.

A layer of a few rows is some forty small operations: starting each, sharing it out over threads and waiting for it
costs more than computing it. Here they are four kernels and four products, with room for their results made once for
all layers. Measured: docs/decisions/generation.md. tasks/model/decoding/fused_layer.py computes the same by torch
alone.
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.compute.threads import n_threads
from tasks.model.decoding.fused_layer import FusedLayer, Norm
from tasks.model.decoding.kernels import add_and_norm_rows, attend_columns, gate_rows, largest_of_rows, norm_rows

Flat = NDArray[Any]
"""A tensor's memory as kernels take it."""

_FEW = 256
"""Fewer rows than this for each thread are not worth waking it."""
BLOCK = 16
"""Columns of a cache are a multiple of this, also what the kernel's loops go by."""
_FEW_ROWS = 4
"""Attention of fewer rows than this for each thread is not worth waking it."""


def flat(tensor: Tensor, dtype: torch.dtype = torch.bfloat16) -> Flat:
    """The memory of a contiguous tensor of this type, which it keeps alive; bfloat16 numbers as their bits.

    Raises:
        ValueError: it is of another type, or its numbers do not lie one after another.
    """
    if tensor.dtype != dtype or not tensor.is_contiguous():
        raise ValueError(
            f"a kernel reads contiguous tensors of {dtype}, not {tensor.dtype} with steps {tensor.stride()}"
        )
    memory: Flat = (tensor.view(torch.uint16) if dtype == torch.bfloat16 else tensor).numpy()
    return memory


def slices(n_rows: int, few: int = _FEW) -> list[tuple[int, int]]:
    """Rows from and to, one part for each of torch's threads where each then has `few` rows."""
    n_parts = max(1, min(torch.get_num_threads(), n_rows // few))
    return list(pairwise(n_rows * number // n_parts for number in range(n_parts + 1)))


def in_parts(work: Callable[[int, int, int], object], parts: list[tuple[int, int]]) -> None:
    """Call `work(number, low, high)` for each part, the first on this thread; kernels run without Python's lock."""
    waiting = [_threads().submit(work, number, *parts[number]) for number in range(1, len(parts))]
    work(0, *parts[0])
    for each in waiting:
        each.result()


def largest_places(x: Tensor) -> Tensor:
    """Where each row of x (rows, n) is largest, the first of equal ones: (rows,)."""
    out = torch.empty(len(x), dtype=torch.int64)
    arguments = flat(x), flat(out, torch.int64)
    in_parts(lambda _, low, high: largest_of_rows(*arguments, low, high), slices(len(x)))
    return out


@cache
def _threads() -> ThreadPoolExecutor:
    """Started as they are needed."""
    return ThreadPoolExecutor(n_threads(), thread_name_prefix="kernel")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of its parent's threads


class KernelNorm:
    """A norm as kernels take it."""

    def __init__(self, norm: Norm) -> None:
        # Detached, this keeps the numbers alive even if the parameter is given others.
        self.weight: Flat = flat(norm.weight.detach())
        self.epsilon = norm.epsilon


class States:
    """States and their room; what a method returns holds until the next call of the same one.

    Args:
        hidden: (rows, columns, d), contiguous; changed in place.
        n_gated: Numbers of a state within the feed-forward part.
    """

    def __init__(self, hidden: Tensor, n_gated: int) -> None:
        self.hidden = hidden
        self._normed, self._gated = torch.empty_like(hidden), hidden.new_empty(*hidden.shape[:-1], n_gated)
        self._flat_hidden, self._flat_normed, self._flat_gated = map(_by_row, (hidden, self._normed, self._gated))
        self._parts = slices(hidden.shape[:-1].numel())

    def normed(self, norm: KernelNorm) -> Tensor:
        """The norm of the states."""
        arguments = self._flat_hidden, norm.weight, norm.epsilon, self._flat_normed
        in_parts(lambda _, low, high: norm_rows(*arguments, low, high), self._parts)
        return self._normed

    def added_and_normed(self, more: Tensor, norm: KernelNorm) -> Tensor:
        """Add `more` to the states; the norm of the sum."""
        arguments = self._flat_hidden, _by_row(more), norm.weight, norm.epsilon, self._flat_normed
        in_parts(lambda _, low, high: add_and_norm_rows(*arguments, low, high), self._parts)
        return self._normed

    def gated(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up of (rows, columns, 2 n_gated), gate first.

        Raises:
            ValueError: `gate_up` is of another width, which the kernel would not see.
        """
        if gate_up.shape[-1] != 2 * self._gated.shape[-1]:
            raise ValueError(f"gates of {gate_up.shape[-1]} numbers where 2 * {self._gated.shape[-1]} are expected")
        arguments = _by_row(gate_up), self._flat_gated
        in_parts(lambda _, low, high: gate_rows(*arguments, low, high), self._parts)
        return self._gated


def _by_row(x: Tensor) -> Flat:
    return flat(x.view(-1, x.shape[-1]))


def kernels_know(layers: Sequence[FusedLayer], dtype: torch.dtype, device: torch.device) -> bool:
    """Do the kernels, which check no bounds, compute layers of this kind?

    Some trainers have norms wider than the rest of a model.
    """
    norms = [norm for layer in layers for norm in (layer.before_attention, layer.before_feed_forward)]
    return (
        device.type == "cpu"
        and dtype == torch.bfloat16
        and layers[0].d % 4 == 0
        and len({(layer.d, layer.n_heads, layer.n_kv, layer.n_gated) for layer in layers}) == 1
        and all(norm.weight.dtype == dtype for norm in norms)
    )


class KernelCache:
    """Keys (rows, kv_heads, d, columns) and values (rows, kv_heads, columns, d) of each layer; zeros where nothing is.

    Args:
        layers: Of the model.
        n_rows: Of the batch.
        n_columns: Room, rounded up to a multiple of `BLOCK`.
    """

    def __init__(self, layers: Sequence[FusedLayer], n_rows: int, n_columns: int) -> None:
        self.n_columns = math.ceil(n_columns / BLOCK) * BLOCK
        self._held = [_room(layer, n_rows, self.n_columns) for layer in layers]
        self.flat = [(flat(keys), flat(values)) for keys, values in self._held]

    def make_room(self, n_columns: int, n_rows: int) -> None:
        """Have at least so many columns; rows after the first `n_rows` are dropped."""
        if n_columns <= self.n_columns:
            return
        before, self.n_columns = self.n_columns, math.ceil(n_columns / BLOCK) * BLOCK
        for number in range(len(self._held)):
            keys, values = self._held[number]
            _, n_kv, d, _ = keys.shape
            new = keys.new_zeros(n_rows, n_kv, d, self.n_columns), keys.new_zeros(n_rows, n_kv, self.n_columns, d)
            new[0][..., :before], new[1][:, :, :before] = keys[:n_rows], values[:n_rows]
            self._held[number], self.flat[number] = new, (flat(new[0]), flat(new[1]))
            del keys, values  # with the entries above the last that held them: one layer at a time is there twice

    def move(self, sources: Tensor, gaps: Tensor) -> None:
        """Put the rows `sources` in the place of `gaps`."""
        for layer in self._held:
            for held in layer:
                held[gaps] = held[sources]

    def columns(self, row: int, start: int, end: int) -> list[tuple[Tensor, Tensor]]:
        """Copies of a row's keys (kv_heads, d, columns) and values (kv_heads, columns, d) per layer."""
        return [(keys[row, ..., start:end].clone(), values[row, :, start:end].clone()) for keys, values in self._held]

    def put(self, row: int, columns: Sequence[tuple[Tensor, Tensor]], start: int, end: int) -> None:
        """Fill these columns of a row with the first of others."""
        for (keys, values), (new_keys, new_values) in zip(self._held, columns, strict=True):
            keys[row, ..., start:end] = new_keys[..., : end - start]
            values[row, :, start:end] = new_values[:, : end - start]


@dataclass(frozen=True)
class NewColumns:
    """Columns of a batch that are to be computed, and where they go in the cache."""

    angles: tuple[Tensor, Tensor]
    """Cosines and sines of their positions (rows, columns, d)."""
    pads: Tensor
    """First columns of each row that hold nothing."""
    places: Tensor
    """Row of the cache of each row."""
    start: int
    """Column of the cache into which the first one goes."""


class KernelLayers:
    """All layers of a model, and the keys and values of the prefix that all rows attend to."""

    def __init__(self, layers: Sequence[FusedLayer]) -> None:
        self.layers = layers
        self._norms = [(KernelNorm(each.before_attention), KernelNorm(each.before_feed_forward)) for each in layers]
        self.prefix = KernelCache(layers, 1, 0)
        self.n_prefix = 0

    def after(self, hidden: Tensor, new: NewColumns, cache: KernelCache, *, last: bool) -> Tensor:
        """States (rows, columns, d) after all layers, before the last norm; `hidden` is used up.

        Args:
            hidden: States of the new columns (rows, columns, d).
            cache: Has room for them, and takes their keys and values.
            last: Return only the last column's states.
        """
        skipped = hidden.shape[1] - 1 if last else 0
        attention = _Attention(self, cache, hidden.shape[:2], new)
        n_gated = self.layers[0].n_gated
        states = States(hidden, n_gated)
        normed = states.normed(self._norms[0][0])
        for number, layer in enumerate(self.layers):
            is_last = number + 1 == len(self.layers)
            mixed = attention.of(layer.qkv(normed), number, skipped if is_last else 0)
            if is_last and skipped:
                states = States(hidden[:, -1:].contiguous(), n_gated)
            normed = states.added_and_normed(layer.out(mixed), self._norms[number][1])
            more = layer.down(states.gated(layer.gate_up(normed)))
            if not is_last:
                normed = states.added_and_normed(more, self._norms[number + 1][0])
        return states.hidden.add_(more)


class _Attention:
    """What stays the same over the layers of one pass: arguments, and room for each thread's scores."""

    def __init__(self, model: KernelLayers, cache: KernelCache, shape: Sequence[int], new: NewColumns) -> None:
        layer = model.layers[0]
        groups = layer.n_heads // layer.n_kv
        rooms = ((groups + 1, layer.d), (groups, model.prefix.n_columns), (groups, cache.n_columns), (groups, layer.d))
        self._model, self._cache, self._start, self._shape = model, cache, new.start, shape
        self._rows = tuple(part.contiguous() for part in (*new.angles, new.pads, new.places))
        self._flat_rows = *map(flat, self._rows[:2]), *(flat(part, torch.int64) for part in self._rows[2:])
        self._parts = slices(shape[0], _FEW_ROWS)
        self._rooms = [[torch.empty(room) for room in rooms] for _ in self._parts]
        self._flat_rooms = [tuple(flat(each, torch.float32) for each in room) for room in self._rooms]
        self._out = self._room_for(shape[1])

    def of(self, packed: Tensor, number: int, first_query: int) -> Tensor:
        """Attention of a layer's new columns from `first_query` on, (rows, columns, heads * d); until the next call."""
        layer, (n_rows, n_columns) = self._model.layers[number], self._shape
        out, flat_out = self._room_for(n_columns - first_query) if first_query else self._out
        arguments: tuple[Any, ...] = (
            flat(packed.view(n_rows, n_columns, -1, layer.d)),
            *self._flat_rows,
            *self._cache.flat[number],
            *self._model.prefix.flat[number],
            self._model.n_prefix,
            self._start,
            first_query,
            layer.scale,
        )
        rooms = self._flat_rooms
        in_parts(lambda part, low, high: attend_columns(*arguments, *rooms[part], flat_out, low, high), self._parts)
        return out

    def _room_for(self, n_columns: int) -> tuple[Tensor, Flat]:
        layer, n_rows = self._model.layers[0], self._shape[0]
        out = torch.empty(n_rows, n_columns, layer.n_heads * layer.d, dtype=torch.bfloat16)
        return out, flat(out.view(n_rows, n_columns, layer.n_heads, layer.d))


def _room(layer: FusedLayer, n_rows: int, n_columns: int) -> tuple[Tensor, Tensor]:
    shape = n_rows, layer.n_kv
    return (
        torch.zeros(*shape, layer.d, n_columns, dtype=torch.bfloat16),
        torch.zeros(*shape, n_columns, layer.d, dtype=torch.bfloat16),
    )
