"""Several processes of which each holds a part of every weight, gradient and moment (`train.sharding: full`).

torch's FSDP2: a layer's weights come together for its forward and its backward and go apart again. Checkpoints and
results hold whole tensors, so they are those of a training in one process. Called by tasks/train/distributed.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tasks.model.adapter import trainable_tensors
from tasks.model.decoding.decoder import language_model
from tasks.train.batches import Batch, Examples
from tasks.train.checkpoint import State, load_newest
from tasks.train.distributed import Replicas, without_targets
from tasks.train.forward import Losses, plain_losses


class Shards(Replicas):
    """One of several processes that hold the model between them."""

    def prepare(self, model: nn.Module) -> nn.Module:
        for layer in language_model(model).model.layers:
            fully_shard(layer)
        fully_shard(model)
        for module in _sharded(model):
            # Each process has divided by the tokens of all: what remains is to add.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        return model

    def finish(self, model: nn.Module, fresh: Callable[[], nn.Module]) -> nn.Module:
        trained = {name: _whole(part) for name, part in trainable_tensors(model).items()}
        if not self.leads:
            return model
        # A sharded module gives away its parts whenever it is asked for its state: the tensors move to a plain one.
        plain = fresh()
        for name, tensor in trainable_tensors(plain).items():
            tensor.copy_(trained[name])
        return plain

    def losses_of(self, model: nn.Module, *, dtype: torch.dtype, recompute: bool) -> Losses:
        # The fast path reads weights past the model's forward, where they are in parts.
        return plain_losses(model, dtype=dtype, recompute=recompute, share=False)

    def load(
        self, folder: Path, *, key: str, model: nn.Module, optimizer: torch.optim.Optimizer, warn: Callable[[str], None]
    ) -> State | None:
        whole = _Gathered(model, optimizer)
        state = self.in_turn(
            lambda: load_newest(folder, key=key, weights=whole.weights, optimizer=whole.as_optimizer(), warn=warn)
        )
        if state is not None:
            whole.put_back()
        return state

    def save(self, folder: Path, state: State, *, key: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        whole = _Gathered(model, optimizer)  # all processes take part
        if self.leads:
            self._write(folder, state, key, whole.weights, whole.as_optimizer())

    def _compared(self, model: nn.Module) -> list[Tensor]:
        return []  # no process holds what another holds

    def batches(self, examples: Examples, places: Sequence[Sequence[int]]) -> list[Batch]:
        # Weights come together only when all processes ask for them: all go through the model equally often.
        return [
            examples.batch(mine)
            if (mine := indices[self.rank :: self.size])
            else without_targets(examples.batch(indices[:1]))
            for indices in places
        ]

    def takes(self, batch: Batch) -> bool:
        return True

    def sum_gradients(self, trained: Sequence[nn.Parameter]) -> None:
        """The backward has added them up."""

    def clip(self, trained: Sequence[nn.Parameter], limit: float) -> float:
        norm = nn.utils.clip_grad_norm_(trained, limit)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _sharded(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


class _Gathered:
    """Whole copies of weights and moments, for as long as a checkpoint is written or read."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for module in _sharded(model):
            module.reshard()  # a forward without a backward (validation) has left whole weights in the parts' places
        self._parts, self._optimizer = trainable_tensors(model), optimizer
        self._names = _names(model)
        self.weights = {name: _whole(part) for name, part in self._parts.items()}
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self.param_groups = [
            {"params": [self.weights[self._names[id(each)]] for each in group["params"]]}
            for group in optimizer.param_groups
        ]
        for parameter, moments in optimizer.state.items():
            whole = self.weights[self._names[id(parameter)]]
            self.state[whole] = {kind: _whole(value) for kind, value in moments.items()}

    def as_optimizer(self) -> torch.optim.Optimizer:
        """With the two members of an optimiser that checkpoints read and write: `state` and `param_groups`."""
        return cast(torch.optim.Optimizer, self)

    def put_back(self) -> None:
        """Cut what was read as the model is cut."""
        for name, part in self._parts.items():
            part.copy_(_cut(self.weights[name], part))
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                moments = self.state.get(self.weights[self._names[id(parameter)]], {})
                self._optimizer.state[parameter] = {
                    kind: _cut(value, parameter.detach()) if value.shape == parameter.shape else value
                    for kind, value in moments.items()
                }


def _names(model: nn.Module) -> dict[int, str]:
    """Parameter -> the name under which it is saved."""
    trained = [parameter for _, parameter in sorted(model.named_parameters()) if parameter.requires_grad]
    return {id(parameter): name for parameter, name in zip(trained, trainable_tensors(model), strict=True)}


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def _cut(whole: Tensor, part: Tensor) -> Tensor:
    """The whole tensor cut as `part` is cut."""
    if not isinstance(part, DTensor):
        return whole
    return distribute_tensor(whole.to(part.device), part.device_mesh, part.placements, src_data_rank=None)
