"""From a batch to the loss of each supervised token: a fast path for Llama-like decoders on a CPU, else the model.

`PlainModel` uses the model's own forward, whatever its architecture, and the model's own cache for a shared prefix. The
fast path is tasks/train/fast.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.model.decoding.decoder import language_model
from tasks.train.batches import Batch, backward_through, ends_of, has_steady_positions, shared_prefix
from tasks.train.fast.decoder import FastDecoder, is_fast


class PlainModel:
    """Computes logits only for columns where some row of the batch has loss.

    With float32 weights and bfloat16 arithmetic (`method: full`), matrix products run in bfloat16.

    Args:
        model: From `tasks.model.adapter.open_for_training`.
        dtype: Number type of the arithmetic.
        recompute: Gradient checkpointing, which leaves no cache for a shared prefix.
        share: Read a shared prefix once, if the model's cache allows it.
    """

    def __init__(self, model: nn.Module, *, dtype: torch.dtype, recompute: bool, share: bool = True) -> None:
        self.model = model
        self.whole = language_model(model)
        if recompute:
            _keep_layer_inputs_only(self.whole)
        self.dtype = dtype
        # transformers renames the argument: `past_key_values` until 5.23, `cache` since.
        names = inspect.signature(self.whole.forward).parameters
        self.cache_name = next((name for name in ("cache", "past_key_values") if name in names), None)
        able = self.cache_name is not None and _caches_every_position(self.whole.config)
        self.shares = share and not recompute and able
        self._n_prefix = 0
        self._given: list[Tensor] = []
        self._holding: list[int] = []

    def __call__(self, batch: Batch) -> Tensor:
        """Losses of the supervised tokens (n,)."""
        device, n_prefix = self.whole.device, self._n_prefix
        columns, place = torch.unique(batch.columns, return_inverse=True)
        # No padding mask: padding is on the right, where causal attention does not look.
        ids = batch.ids
        extra: dict[str, Any] = {"use_cache": False}
        if n_prefix:
            ids = ids[:, n_prefix : int(ends_of(batch).max())]
            extra = self._filled_cache(len(ids), n_prefix + ids.shape[1])
        logits = self.logits(ids, _sent(columns - n_prefix, device), **extra)
        return losses_at(logits, _sent(batch.rows, device), _sent(place, device), _sent(batch.targets, device))

    def logits(self, ids: Tensor, columns: Tensor, **settings: Any) -> Tensor:
        """Logits (batch, n, vocabulary) at these columns of ids (batch, seq)."""
        found: Tensor = self._forward(ids, logits_to_keep=columns, **settings or {"use_cache": False}).logits
        return found

    @contextmanager
    def sharing(self, batches: Sequence[Batch]) -> Iterator[None]:
        """Within the block, read the prefix that all these batches share once; its backward runs at the end.

        Losses and gradients are the same as without it. Does nothing for a model whose cache does not hold keys and
        values of every position (sliding windows, recurrent layers).
        """
        batches = [batch for batch in batches if len(batch.targets)]
        n_prefix = shared_prefix(batches) if self.shares else 0
        read: list[Tensor] = []
        if n_prefix:
            cache = self._cache()
            first = batches[0]
            ids = first.ids[first.rows[:1], :n_prefix]
            self._forward(ids, logits_to_keep=1, use_cache=True, **{str(self.cache_name): cache})
            # A layer that reuses another layer's keys holds none.
            self._holding = [number for number, layer in enumerate(cache.layers) if layer.keys is not None]
            held = [cache.layers[number] for number in self._holding]
            read = [tensor for layer in held for tensor in (layer.keys, layer.values)]
        given = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in read]
        self._n_prefix, self._given = n_prefix, given
        try:
            yield
        finally:
            self._n_prefix, self._given = 0, []
        backward_through(read, given)

    def _forward(self, ids: Tensor, **settings: Any) -> Any:
        device = self.whole.device
        mixed = self.dtype != torch.float32
        with torch.autocast(device.type, dtype=self.dtype if mixed else torch.bfloat16, enabled=mixed):
            return self.model(input_ids=_sent(ids, device), **settings)

    def _filled_cache(self, n_rows: int, n_columns: int) -> dict[str, Any]:
        """Arguments with which the model treats the prefix as read by each row."""
        cache = self._cache()
        for number, keys, values in zip(self._holding, self._given[::2], self._given[1::2], strict=True):
            cache.update(keys.expand(n_rows, -1, -1, -1), values.expand(n_rows, -1, -1, -1), number)
        seen = torch.ones(n_rows, n_columns, dtype=torch.int64, device=self.whole.device)
        return {"use_cache": True, "attention_mask": seen, str(self.cache_name): cache}

    def _cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.whole.config)


def losses_at(logits: Tensor, rows: Tensor, places: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, float32 (n,), of targets (n,) by the logits at these rows and places (n,)."""
    return functional.cross_entropy(logits[rows, places].float(), targets, reduction="none")


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device. From pinned memory a card takes it when it gets there, and the CPU need not wait."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _caches_every_position(config: Any) -> bool:
    """Whether the model's cache holds keys and values of all positions, and no other state of a prefix."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    if getattr(config, "is_encoder_decoder", False) or not has_steady_positions(config):
        return False
    try:
        layers = DynamicCache(config=config).layers
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def _keep_layer_inputs_only(whole: Any) -> None:
    """Enable gradient checkpointing, under the name that this version of transformers gives it."""
    if hasattr(whole, "activation_checkpointing_enable"):
        whole.activation_checkpointing_enable({"use_reentrant": False})
    else:
        whole.gradient_checkpointing_enable({"use_reentrant": False})


class Losses(Protocol):
    """What a training step needs from a model."""

    def __call__(self, batch: Batch) -> Tensor:
        """Cross-entropy of each supervised token of the batch, nats, float32 (n,)."""

    def sharing(self, batches: Sequence[Batch]) -> AbstractContextManager[None]:
        """Within the block, compute the prefix that all these batches share once; its gradient is complete at the end.

        Use only these batches inside, and run the backward of each before the end.
        """


def losses_of(model: nn.Module, *, dtype: torch.dtype, recompute: bool) -> Losses:
    """The fastest exact way from batch to losses on this machine.

    Args:
        model: From `tasks.model.adapter.open_for_training`.
        dtype: Number type of the arithmetic.
        recompute: Gradient checkpointing: keep only each layer's input and run the layer again in the backward.
    """
    if is_fast(model):
        return FastDecoder(model, recompute=recompute)
    return plain_losses(model, dtype=dtype, recompute=recompute)


def plain_losses(model: nn.Module, *, dtype: torch.dtype, recompute: bool, share: bool = True) -> Losses:
    """Losses through the model's own forward, whatever its architecture.

    Args:
        model: From `tasks.model.adapter.open_for_training`.
        dtype: Number type of the arithmetic.
        recompute: Gradient checkpointing.
        share: Read a shared prefix once. False when every process must run the model equally often.
    """
    return PlainModel(model, dtype=dtype, recompute=recompute, share=share)
