"""Whether a training computes the model's own forward, and the memory of one step of it, before a model is loaded.

The fast path's memory is arithmetic (tasks/train/memory.py). A step of the model's own forward is computed here once,
by the code of the training itself, with tensors that have shapes and no values, and their bytes are added up as they
come and go. So it holds for every architecture, for DoRA, for what autocast copies, and for the order in which a
backward frees activations and makes gradients.
"""

from __future__ import annotations

import json
import logging
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from schemas.training import AdapterSpec, TrainSpec
from tasks.extras import missing_packages
from tasks.model.base_model import auto_is_bfloat16
from tasks.train.model_shapes import FAST_TYPES

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

_STEADY_ROPE = ("default", "linear", "llama3", "yarn")
"""`_STEADY_ROPE` of tasks/train/batches.py, which imports torch; a test compares them."""
_WINDOW = 4096
"""Sliding window of a Mistral and a Qwen2 whose config.json names none."""
LARGE_TENSOR = 32 * 2**20
"""Bytes from which a tensor has pages of its own (tasks/train/part.py): the largest threshold that glibc allows."""
OWN_FORWARD_COST = 2.5
"""CPU time of the model's own forward over that of the fast path: SmolLM2-135M, LoRA on all layers, bfloat16. Source:
docs/decisions/training-engine.md."""
_KEPT = 64
log = logging.getLogger("tunegate.train")


def slow_cause(config: Mapping[str, Any], spec: TrainSpec, *, device: str, n_rows: int = 0) -> str | None:
    """Why a training uses the model's own forward; None if it takes the fast path (tasks/train/fast).

    Args:
        config: Fields of the base's config.json.
        spec: The settings.
        device: `cpu` or `cuda`.
        n_rows: Rows of the embeddings that are trained too, for a chat template's tokens.
    """
    kind = config.get("model_type")
    if device != "cpu":
        return "the fast path is for CPUs"
    if spec.method == "full":
        return "method full trains all weights"
    if spec.sharding == "full":
        return "sharding full spreads the weights"
    if kind not in FAST_TYPES:
        return f"the fast path knows {', '.join(FAST_TYPES)}, and the base is a {kind}"
    if spec.adapter.dora:
        return "adapter.dora scales the rows of the weights"
    if n_rows:
        return f"the embeddings of the chat template's {n_rows} tokens are trained"
    four = spec.four_bits()
    used = ("bfloat16" if auto_is_bfloat16() else "float32") if spec.dtype == "auto" else spec.dtype
    if four is not None and four.compute_dtype not in ("auto", used):
        return f"quantization.compute_dtype is {four.compute_dtype}, and train.dtype {used}"
    return _unusual(config)


def _unusual(config: Mapping[str, Any]) -> str | None:
    """What a decoder of these types has that the fast path does not compute."""
    kind = config.get("model_type")
    window = config.get("sliding_window", None if kind == "llama" else _WINDOW)
    if window is not None and (kind != "qwen2" or config.get("use_sliding_window")):
        return f"the base's attention has a sliding window of {window} tokens"
    for name, usual in (("hidden_act", "silu"), ("attention_dropout", 0.0), ("mlp_bias", False)):
        if config.get(name, usual) not in (usual, None):
            return f"the base's {name} is {config[name]}"
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    used = rope.get("rope_type", rope.get("type", "default"))
    return None if used in _STEADY_ROPE else f"the base's rope_type is {used}, which depends on the length of the text"


@dataclass(frozen=True)
class Step:
    """What determines the memory of one forward and backward, besides the weights."""

    config: str
    """config.json."""
    adapter: AdapterSpec | None
    """None trains all weights."""
    dtype: str
    """Of the arithmetic."""
    recompute: bool
    batch: int
    tokens: int
    """Of each example."""
    n_columns: int
    """Positions of each example whose logits are computed."""
    n_batches: int = 1
    """Before the optimiser's turn."""
    n_rows: int = 0
    """Trained rows of the embeddings."""
    four_bits: bool = False
    """The base's linear layers are dequantised for each product."""


@dataclass(frozen=True)
class StepBytes:
    """Bytes of tensors that are no weights, with the gradients that exist at a moment."""

    small: int
    """Peak of forward and backward of the tensors that lie on the heap, which keeps what it had at its peak."""
    large: int
    """The same of tensors with pages of their own, which come and go."""
    forward: int
    """Peak of all until the loss is there."""
    gradients: int
    """At the end."""
    large_gradients: int
    """Those of them with pages of their own."""


@lru_cache(maxsize=_KEPT)
def step_bytes(step: Step) -> StepBytes | None:
    """Compute a step without values; takes 0.3 ms of CPU time per operation of the model, 1 to 7 s.

    Returns:
        None without the extra `train`, and for an architecture whose shapes depend on values.
    """
    if missing_packages("train"):
        return None
    from torch._subclasses.fake_tensor import (
        DataDependentOutputException,
        DynamicOutputShapeException,
        UnsupportedFakeTensorException,
        UnsupportedOperatorException,
    )

    try:
        return _run(step)
    except (
        DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException,
        UnsupportedOperatorException,
    ) as error:  # fmt: skip
        log.info("memory of a step is not known: %s: %s", type(error).__name__, error)
        return None


def _run(step: Step) -> StepBytes:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from tasks.model.adapter import attach_adapter
    from tasks.model.skeleton import build_skeleton
    from tasks.train.forward import PlainModel, losses_at

    dtype = getattr(torch, step.dtype)
    stored = torch.float32 if step.adapter is None else dtype
    base = build_skeleton(json.loads(step.config), dtype=stored, attention=None)
    if step.four_bits:
        _dequantise(base)
    rows = range(step.n_rows)
    model: nn.Module = base if step.adapter is None else attach_adapter(base, step.adapter, seed=0, rows=rows)
    with ExitStack() as modes:
        modes.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        _leave_meta(model.train())
        ids = torch.zeros(step.batch, step.tokens, dtype=torch.int64)
        columns = torch.arange(step.n_columns)
        places = torch.zeros(step.batch * step.n_columns, dtype=torch.int64)
        plain = PlainModel(model, dtype=dtype, recompute=step.recompute, share=False)
        counter = modes.enter_context(_live_tensors())
        for _ in range(step.n_batches):
            loss = losses_at(plain.logits(ids, columns), places, places, places).sum() / len(places)
            forward = sum(counter.peak)
            loss.backward()  # type: ignore[no-untyped-call]
            del loss
        small, large = counter.peak
        return StepBytes(small, large, forward, gradients=sum(counter.now), large_gradients=counter.now[1])


def _dequantise(base: PreTrainedModel) -> None:
    """Let each linear layer make its matrix for a product, forward and backward, as bitsandbytes does of 4 bits."""
    import torch
    from torch import Tensor, nn

    from tasks.train.fast.kernels import frozen_linear

    def product(layer: nn.Linear, x: Tensor) -> Tensor:
        return frozen_linear(x, lambda: torch.empty_like(layer.weight, requires_grad=False), layer.bias)

    head = base.get_output_embeddings()
    for module in base.modules():
        if isinstance(module, nn.Linear) and module is not head:
            module.forward = partial(product, module)  # type: ignore[method-assign]


def _leave_meta(model: nn.Module) -> None:
    """Replace the weights on the meta device with fake ones on a CPU, for which autocast works as for real ones."""
    import torch
    from torch import nn

    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None:
                like = torch.empty(old.shape, dtype=old.dtype)
                module._parameters[name] = made.setdefault(id(old), nn.Parameter(like, old.requires_grad))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _live_tensors() -> Any:
    """A mode that counts the bytes of tensors from their operation until they are freed: `now` and `peak`.

    Each is a list of two numbers: of tensors below `LARGE_TENSOR`, and of the others.
    """
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.now, self.peak = [0, 0], [0, 0]
            self._sizes: dict[int, int] = {}

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = {each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
            made = func(*args, **(kwargs or {}))
            for each in tree_leaves(made):
                if isinstance(each, Tensor):
                    self._add(each.untyped_storage(), given)
            return made

        def _add(self, storage: Any, given: set[int]) -> None:
            key = storage._cdata
            if key in self._sizes or key in given:
                return
            size = self._sizes[key] = storage.nbytes()
            kind = int(size >= LARGE_TENSOR)
            self.now[kind] += size
            self.peak[kind] = max(self.peak[kind], self.now[kind])
            weakref.finalize(storage, self._drop, key)

        def _drop(self, key: int) -> None:
            size = self._sizes.pop(key)
            self.now[int(size >= LARGE_TENSOR)] -= size

    return LiveTensors()
