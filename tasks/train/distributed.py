"""Training in one process (`Group`), or in several that train one model together (`Replicas`, `Shards`).

`Replicas` each take their rows of every batch, and the gradients are summed. Nothing is averaged: each process divides
by the number of supervised tokens in all processes' rows, so the sum of the gradients is the gradient of the mean over
the whole batch, however many tokens each process has. `Shards` each hold a part of every weight, gradient and moment
(`train.sharding: full`), with torch's FSDP2: it gathers a layer's weights for its forward and its backward and frees
them afterwards. No card ever holds the whole model: it is read into the machine's memory and sharded from there, one
process after another, and checkpoints and results, which hold whole tensors exactly as from a single process, are put
together in the memory of the first.

The loop in tasks/train/engine.py uses this interface and knows nothing of processes; this module knows nothing of how
they were started (tasks/train/place.py; on a cluster by Ray).
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import Store, TCPStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _get_default_store
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from schemas.errors import TrainingError
from schemas.training import TrainSpec
from tasks.model.adapter import trainable_tensors
from tasks.model.decoding.decoder import language_model
from tasks.storage.failpoint import reach
from tasks.train.batches import Batch, Examples
from tasks.train.checkpoint import State, load_newest, save_checkpoint
from tasks.train.forward import Losses, losses_of, plain_losses
from tasks.train.place import LISTENER, LOOPBACK, PORT, RANK, SIZE

T = TypeVar("T")
Load = Callable[[torch.device | None], nn.Module]
"""Opens the model as it is before training, on a device; None for this process's card, or the CPU if there is none."""
_CPU = torch.device("cpu")
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of a number -> the type that shows its bits as an integer."""
BUCKET = 2**22
"""Gradients sent at once: 16 MiB in float32."""
TIMEOUT = timedelta(minutes=30)
"""How long a process waits for another before it gives up; a dead process is noticed immediately."""


class Group:
    """One process that trains alone."""

    size = 1
    """Number of processes. Each step takes `size * batch_size * gradient_accumulation_steps` examples."""
    rank = 0
    on_saved: Callable[[Path], None] | None = None
    """Called by the leader with each complete checkpoint."""

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoints, figures and results."""
        return self.rank == 0

    def open(self, load: Load) -> nn.Module:
        """The model as this process holds it; called once, before the optimiser is created."""
        return load(None)

    def finish(self, model: nn.Module, load: Load) -> nn.Module:
        """The whole trained model, for the leader to save; `load` is that of `open`."""
        return model

    def losses_of(self, model: nn.Module, *, dtype: torch.dtype, recompute: bool) -> Losses:
        """As `tasks.train.forward.losses_of`."""
        return losses_of(model, dtype=dtype, recompute=recompute)

    def load(
        self, folder: Path, *, key: str, model: nn.Module, optimizer: torch.optim.Optimizer, warn: Callable[[str], None]
    ) -> State | None:
        """As `tasks.train.checkpoint.load_newest`."""
        return load_newest(folder, key=key, weights=trainable_tensors(model), optimizer=optimizer, warn=warn)

    def save(self, folder: Path, state: State, *, key: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """As `tasks.train.checkpoint.save_checkpoint`, by the leader alone; the others help to gather tensors."""
        if self.leads:
            self._write(folder, state, key, trainable_tensors(model), optimizer)

    def _write(
        self, folder: Path, state: State, key: str, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> None:
        written = save_checkpoint(folder, state, key=key, weights=weights, optimizer=optimizer)
        if self.on_saved is not None:
            self.on_saved(written)

    def check_in_step(self, step: int, model: nn.Module) -> None:
        """Refuse to continue when processes are at different steps or hold different weights.

        Raises:
            TrainingError: TG0416, they differ.
        """

    def reseed(self, seed: int, step: int) -> None:
        """Give each process its own dropout; a single process keeps its stream of random numbers."""

    def batches(self, examples: Examples, places: Sequence[Sequence[int]]) -> list[Batch]:
        """This process's part of each batch of a step."""
        return [examples.batch(indices) for indices in places]

    def needs(self, batch: Batch) -> bool:
        """Whether this batch must go through the model; without supervised tokens it adds nothing."""
        return bool(len(batch.targets))

    def total(self, *values: float) -> tuple[float, ...]:
        """Each value summed over all processes."""
        return values

    def largest(self, value: float) -> float:
        """The largest value of all processes."""
        return value

    def sum_gradients(self, trained: Sequence[nn.Parameter]) -> None:
        """Replace each gradient with the sum over all processes."""

    def clip(self, trained: Sequence[nn.Parameter], limit: float) -> float:
        """Clip all gradients to a common norm of at most `limit`; returns the norm before clipping."""
        return float(nn.utils.clip_grad_norm_(trained, limit))


ALONE = Group()


def join(spec: TrainSpec) -> Group:
    """Join the other processes of this training; a single process gets a `Group` of its own.

    Uses the process group that exists already, as on a Ray cluster.

    Raises:
        TrainingError: TG0416, the number of processes is not the declared one, or their kinds of device differ.
    """
    if spec.processes == 1:
        return Group()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if dist.is_initialized():
        rank, size, store = dist.get_rank(), dist.get_world_size(), _get_default_store()
        _check_same(store, "device", kind, rank, size)
    else:
        _init_process_group(kind)
    group = Replicas() if spec.sharding == "none" else Shards()
    n_present = int(group.total(1.0)[0])
    if not n_present == group.size == spec.processes:
        raise TrainingError(
            f"{n_present} processes answer in a group of {group.size}, {spec.processes} are declared", code="TG0416"
        )
    return group


def _init_process_group(kind: str) -> None:
    """Create the group of this machine's processes, on the port that the parent process holds open."""
    rank, size = int(os.environ[RANK]), int(os.environ[SIZE])
    listener = int(os.environ[LISTENER]) if LISTENER in os.environ else None
    store = TCPStore(
        LOOPBACK,
        int(os.environ[PORT]),
        world_size=size,
        is_master=rank == 0,
        timeout=TIMEOUT,
        master_listen_fd=listener,
    )
    _check_same(store, "device", kind, rank, size)
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT
    )


def wait_for_all() -> None:
    """Wait until every process of the group gets here; return immediately without a group."""
    if dist.is_initialized():
        dist.barrier()


def value_of_leader(name: str, value: Callable[[], str]) -> str:
    """The first process's value, in all processes; without a group this process's own.

    Args:
        name: A key, the same in all processes and used once.
        value: Called in the first process only.
    """
    if not dist.is_initialized():
        return value()
    store = _get_default_store()
    if dist.get_rank() == 0:
        store.set(name, value())
    shared: bytes = store.get(name)
    return shared.decode()


def _check_same(store: Store, name: str, value: str, rank: int, size: int) -> None:
    store.set(f"{name}/{rank}", value)
    found = [store.get(f"{name}/{other}").decode() for other in range(size)]
    if len(set(found)) > 1:
        raise TrainingError(
            f"the processes differ in their {name}: {', '.join(found)}",
            code="TG0416",
            hint="train.processes may not exceed the number of cards; CUDA_VISIBLE_DEVICES lists those in use",
        )


class Replicas(Group):
    """One of several processes that each hold the whole model."""

    def __init__(self) -> None:
        self.size, self.rank = dist.get_world_size(), dist.get_rank()
        self.device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")

    def load(
        self, folder: Path, *, key: str, model: nn.Module, optimizer: torch.optim.Optimizer, warn: Callable[[str], None]
    ) -> State | None:
        return self.in_turn(lambda: Group.load(self, folder, key=key, model=model, optimizer=optimizer, warn=warn))

    def in_turn(self, work: Callable[[], T]) -> T:
        """Run `work` in one process after another: it touches files that all of them share."""
        for rank in range(self.size):
            if rank == self.rank:
                done = work()
            dist.barrier()
        return done

    def check_in_step(self, step: int, model: nn.Module) -> None:
        mine = torch.stack([torch.tensor(step, device=self.device), *map(_sum_of_bits, self._compared(model))])
        # The largest of each number and of its negative: one message, and no tensor is both input and result.
        extremes = torch.stack([mine, -mine])
        dist.all_reduce(extremes, dist.ReduceOp.MAX)
        most, least = extremes[0], -extremes[1]
        if not bool((least == most).all()):
            what = "weights" if least[0] == most[0] else f"steps: {int(least[0])} and {int(most[0])}"
            raise TrainingError(
                f"the processes do not start from the same {what}",
                code="TG0416",
                hint="run again; if it persists, a file of the base model or of a checkpoint changed in between",
            )

    def _compared(self, model: nn.Module) -> list[Tensor]:
        return list(trainable_tensors(model).values())

    def reseed(self, seed: int, step: int) -> None:
        # A function of step and rank, so a resumed training needs no random state per process.
        torch.manual_seed((seed * 1_000_003 + step) * self.size + self.rank)

    def batches(self, examples: Examples, places: Sequence[Sequence[int]]) -> list[Batch]:
        # Every size-th row: rows are ordered by length, so all processes get a similar number of tokens.
        return [examples.batch(mine) for indices in places if (mine := indices[self.rank :: self.size])]

    def total(self, *values: float) -> tuple[float, ...]:
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return tuple(sums.tolist())

    def largest(self, value: float) -> float:
        most = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return float(most)

    def sum_gradients(self, trained: Sequence[nn.Parameter]) -> None:
        for bucket in _buckets(trained):
            # A process whose rows are all empty has no gradients, but must take part.
            grads = [torch.zeros_like(each) if each.grad is None else each.grad for each in bucket]
            flat = torch.cat([grad.reshape(-1) for grad in grads])
            dist.all_reduce(flat)
            for parameter, part in zip(bucket, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
                parameter.grad = part.view_as(parameter)
        if not self.leads:
            reach("train.rank.reduced")


def _sum_of_bits(tensor: Tensor) -> Tensor:
    """The sum of all numbers, read as integers: equal on every processor, and finite whatever the numbers are."""
    return tensor.contiguous().view(_INTEGERS[tensor.element_size()]).sum(dtype=torch.int64)


def _buckets(trained: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters in order, grouped into up to `BUCKET` weights of one type."""
    bucket: list[nn.Parameter] = []
    for parameter in trained:
        full = sum(each.numel() for each in bucket) + parameter.numel() > BUCKET
        if bucket and (full or bucket[0].dtype != parameter.dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def without_targets(batch: Batch) -> Batch:
    """The same rows without supervised tokens: for a process that must take part but has nothing to add."""
    return replace(
        batch,
        rows=batch.rows[:0],
        columns=batch.columns[:0],
        targets=batch.targets[:0],
        n_tokens=0,
        ticket_ids=(),
    )


class Shards(Replicas):
    """One of several processes that each hold a part of the model."""

    def __init__(self) -> None:
        super().__init__()
        # Whole tensors travel between the processes' memories, past the cards.
        self._by_memory = dist.group.WORLD if self.device.type == "cpu" else _by_gloo()

    def open(self, load: Load) -> nn.Module:
        mesh = init_device_mesh(self.device.type, (self.size,))
        return self.in_turn(lambda: _shard(load(_CPU), mesh))

    def finish(self, model: nn.Module, load: Load) -> nn.Module:
        trained = {name: self._gather(part) for name, part in trainable_tensors(model).items()}
        if not self.leads:
            return model
        # A sharded module always returns its shards as its state, so the tensors move to a plain module.
        plain = load(_CPU)
        for name, tensor in trainable_tensors(plain).items():
            tensor.copy_(trained[name])
        return plain

    def losses_of(self, model: nn.Module, *, dtype: torch.dtype, recompute: bool) -> Losses:
        # The fast path reads weights without the model's forward, where they are sharded.
        return plain_losses(model, dtype=dtype, recompute=recompute, share=False)

    def load(
        self, folder: Path, *, key: str, model: nn.Module, optimizer: torch.optim.Optimizer, warn: Callable[[str], None]
    ) -> State | None:
        def read() -> State | None:
            whole = _Whole(model, optimizer, _unwritten)
            state = load_newest(folder, key=key, weights=whole.weights, optimizer=whole.as_optimizer(), warn=warn)
            if state is not None:
                whole.cut_into(model, optimizer)
            return state

        return self.in_turn(read)

    def save(self, folder: Path, state: State, *, key: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for module in _sharded(model):
            module.reshard()  # a forward without a backward (validation) leaves whole weights in place of the shards
        whole = _Whole(model, optimizer, self._gather)  # all processes take part
        if self.leads:
            self._write(folder, state, key, whole.weights, whole.as_optimizer())

    def _gather(self, part: Tensor) -> Tensor:
        """The whole tensor, in the memory of the first process; the others get an empty one."""
        if not isinstance(part, DTensor):
            return part.detach().cpu().clone()
        local = part.to_local().detach().cpu()
        # A message has the rows of the largest part: the last parts may be smaller, or empty.
        padded = local.new_zeros(_rows_of_part(part), *part.shape[1:])
        padded[: len(local)] = local
        pieces = [torch.empty_like(padded) for _ in range(self.size)] if self.leads else None
        dist.gather(padded, pieces, group=self._by_memory)
        return local.new_empty(0) if pieces is None else torch.cat(pieces)[: part.shape[0]]

    def _compared(self, model: nn.Module) -> list[Tensor]:
        return []  # the processes hold different parts

    def batches(self, examples: Examples, places: Sequence[Sequence[int]]) -> list[Batch]:
        # Gathering weights needs all processes, so all must run the model equally often.
        return [
            examples.batch(mine)
            if (mine := indices[self.rank :: self.size])
            else without_targets(examples.batch(indices[:1]))
            for indices in places
        ]

    def needs(self, batch: Batch) -> bool:
        return True

    def sum_gradients(self, trained: Sequence[nn.Parameter]) -> None:
        """Do nothing: the backward has summed them."""

    def clip(self, trained: Sequence[nn.Parameter], limit: float) -> float:
        norm = nn.utils.clip_grad_norm_(trained, limit)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _by_gloo() -> dist.ProcessGroup:
    """A second group of the same processes, which sends what lies in memory."""
    group = dist.new_group(backend="gloo")
    if not isinstance(group, dist.ProcessGroup):
        raise TypeError("every process is a member of its own group")
    return group


def _shard(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Leave this process its part of every weight, on its own device; layer by layer, so that no card holds all."""
    for layer in language_model(model).model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for module in _sharded(model):
        # Each process has divided by the tokens of all processes, so the gradients only need to be summed.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    return model


def _sharded(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


class _Whole:
    """Whole weights and moments in the CPU's memory, while a checkpoint is written or read.

    Args:
        model: The sharded model.
        optimizer: Over its shards.
        whole: Returns a shard's whole tensor.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, whole: Callable[[Tensor], Tensor]) -> None:
        self.weights = {name: whole(part) for name, part in trainable_tensors(model).items()}
        self._names = _names(model)
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self.param_groups = [
            {"params": [self.weights[self._names[id(each)]] for each in group["params"]]}
            for group in optimizer.param_groups
        ]
        for parameter, moments in optimizer.state.items():
            kept = self.weights[self._names[id(parameter)]]
            self.state[kept] = {kind: whole(value) for kind, value in moments.items()}

    def as_optimizer(self) -> torch.optim.Optimizer:
        """This object as an optimiser: it has the two members that checkpoints use, `state` and `param_groups`."""
        return cast(torch.optim.Optimizer, self)

    def cut_into(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Give the model and its optimiser this process's part of each tensor."""
        for name, part in trainable_tensors(model).items():
            _local(part).copy_(_own_rows(self.weights[name], part))
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                moments = self.state.get(self.weights[self._names[id(parameter)]], {})
                optimizer.state[parameter] = {kind: _cut(value, parameter) for kind, value in moments.items()}


def _names(model: nn.Module) -> dict[int, str]:
    """Id of each parameter -> the name under which it is saved."""
    trained = [parameter for _, parameter in sorted(model.named_parameters()) if parameter.requires_grad]
    return {id(parameter): name for parameter, name in zip(trained, trainable_tensors(model), strict=True)}


def _unwritten(part: Tensor) -> Tensor:
    """Room for the whole tensor; it takes no memory until something is written."""
    return torch.empty(part.shape, dtype=part.dtype)


def _rows_of_part(part: DTensor) -> int:
    """Rows of the first process's part, the largest. FSDP2 cuts along the first axis, as `torch.chunk` does."""
    return math.ceil(part.shape[0] / part.device_mesh.size())


def _own_rows(whole: Tensor, part: Tensor) -> Tensor:
    """Those rows of the whole tensor that this process holds."""
    if not isinstance(part, DTensor):
        return whole
    start = part.device_mesh.get_local_rank() * _rows_of_part(part)
    return whole[start : start + len(part.to_local())]


def _local(part: Tensor) -> Tensor:
    return part.to_local() if isinstance(part, DTensor) else part


def _cut(value: Tensor, parameter: Tensor) -> Tensor:
    """A moment as the optimiser holds it: sharded like its weight, or if it is one number, whole."""
    weight = parameter.detach()
    if value.shape != weight.shape or not isinstance(weight, DTensor):
        return value.to(weight.device)
    rows = _own_rows(value, weight).to(weight.device, copy=True)
    return DTensor.from_local(
        rows, weight.device_mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride()
    )
