"""A card that is not there: shapes, types and devices of what would be computed on it, by torch's own fake tensors.

Whatever stays on the CPU is computed. What is on the card has no values, so a number that is read from it is always 1;
each such read, and each copy that makes the CPU wait for the card, is counted. A tensor of the CPU among those of the
card is an error, as it is there. torch's backward needs a real device, so here it finds the weights that a loss depends
on and gives them gradients without values.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

from tasks.model.base_model import AUTO_DTYPE

_aten = torch.ops.aten


class FakeCard(FakeTensorMode):
    """Within the block, tensors on `cuda` are fake and all others real.

    Attributes:
        waits: How often the CPU had to wait for the card.
        products: Types in which linear layers multiplied on the card.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.waits = 0
        self.products: set[torch.dtype] = set()

    @property
    def avoid_device_init(self) -> bool:
        return True  # torch would look for the card that it was promised

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        devices = [each for each in leaves if isinstance(each, torch.device)]
        fakes = [each for each in leaves if isinstance(each, FakeTensor)]
        if not fakes and not any(device.type == "cuda" for device in devices):
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled() and func.namespace == "aten" and func._can_decompose():
            with self:  # in this mode torch leaves it to us to take an operation apart
                return func.decompose(*args, **kwargs)
        if func is _aten._local_scalar_dense.default:
            self.waits += 1
            kind = args[0].dtype
            return True if kind == torch.bool else 1.0 if kind.is_floating_point else 1
        if func is _aten._to_copy.default:
            moves = args[0].numel() and not kwargs.get("non_blocking")
            if moves and any(device.type != args[0].device.type for device in devices):
                self.waits += 1
            if devices and devices[0].type == "cpu":
                return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if func in (_aten.mm.default, _aten.addmm.default):
            self.products |= {each.dtype for each in fakes}
        return super().__torch_dispatch__(func, types, args, kwargs)


@contextmanager
def fake_card(monkeypatch: pytest.MonkeyPatch, *, bfloat16: bool = True) -> Iterator[FakeCard]:
    """Work on a machine with a card.

    Args:
        monkeypatch: Undoes what is changed here.
        bfloat16: The card multiplies bfloat16, as those since 2020 do.
    """
    monkeypatch.delenv(AUTO_DTYPE, raising=False)  # which decides before any card is asked
    for name, value in (
        ("is_available", True),
        ("is_bf16_supported", bfloat16),
        ("device_count", 1),
        ("current_device", 0),
        ("get_rng_state", torch.zeros(16, dtype=torch.uint8)),
        ("set_rng_state", None),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda *_, _value=value, **__: _value)
    monkeypatch.setattr(torch._subclasses.fake_tensor, "init_gpu_context", lambda _device: None)
    monkeypatch.setattr(torch.autograd, "backward", _give_gradients)
    monkeypatch.setattr(torch.nn.Module, "_apply", _apply_by(moved={}))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    with FakeCard() as card:
        yield card


def _apply_by(moved: dict[int, tuple[nn.Parameter, nn.Parameter]]) -> Any:
    """How a module is moved: with new parameters, since a fake tensor cannot take a real one's place inside one.

    Args:
        moved: Id of a parameter -> itself and the new one, so that modules that share one still do.
    """

    def apply(module: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
        for child in module.children():
            apply(child, fn)
        for name, old in module._parameters.items():
            if old is not None:
                with torch.no_grad():
                    new = fn(old)
                if new is not old:
                    made = moved.setdefault(id(old), (old, nn.Parameter(new, old.requires_grad)))
                    module._parameters[name] = made[1]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fn(buffer)
        return module

    return apply


def _give_gradients(tensors: Tensor | Sequence[Tensor], *_: object, **__: object) -> None:
    waiting = [each.grad_fn for each in ([tensors] if isinstance(tensors, Tensor) else tensors)]
    seen: set[object] = set()
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            node.variable.grad = torch.zeros_like(node.variable)
        waiting += [each for each, _ in node.next_functions]
