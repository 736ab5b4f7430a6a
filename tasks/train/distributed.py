"""Several processes that train one model: each takes its rows of every batch, the gradients are added up.

Nothing is averaged: each process divides by the number of supervised tokens in all processes' rows, so the sum of the
gradients is the gradient of the mean over the whole batch, however many tokens each has. It knows nothing of how the
processes were started (tasks/train/ranks.py; on a cluster by Ray). Called by tasks/train/part.py; spoken to by
tasks/train/engine.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import Store, TCPStore
from torch.distributed.distributed_c10d import _get_default_store

from schemas.errors import TrainingError
from schemas.training import TrainSpec
from tasks.failpoint import reach
from tasks.model.adapter import trainable_tensors
from tasks.train.batches import Batch, Examples
from tasks.train.checkpoint import State
from tasks.train.group import Group
from tasks.train.ranks import LISTENER, LOOPBACK, PORT, RANK, SIZE

T = TypeVar("T")

BUCKET = 2**22
"""Gradients that are sent at once: 16 MiB in float32."""
TIMEOUT = timedelta(minutes=30)
"""How long a process waits for another before it gives up; a dead one is noticed at once."""


def join(spec: TrainSpec) -> Group:
    """Meet the other processes of this training; alone when there are none.

    Where a group of processes is there already (a Ray cluster makes one), it is that one.

    Raises:
        TrainingError: TG0416, the processes are not as many as declared, or do not sit on the same kind of device.
    """
    if spec.processes == 1:
        return Group()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if dist.is_initialized():
        rank, size, store = dist.get_rank(), dist.get_world_size(), _get_default_store()
        _same_everywhere(store, "device", kind, rank, size)
    else:
        _meet(kind)
    from tasks.train.sharding import Shards

    group = Replicas() if spec.sharding == "none" else Shards()
    there = int(group.total(1.0)[0])
    if not there == group.size == spec.processes:
        raise TrainingError(
            f"{there} processes answer in a group of {group.size}, {spec.processes} are declared", code="TG0416"
        )
    return group


def _meet(kind: str) -> None:
    """Make the group of this machine's processes, at the port that the one that started them has open."""
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
    _same_everywhere(store, "device", kind, rank, size)
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT
    )


def wait_for_all() -> None:
    """Return when every process of the group is here; at once where there is no group."""
    if dist.is_initialized():
        dist.barrier()


def agreed(name: str, value: Callable[[], str]) -> str:
    """The first process's value, in all processes; its own where there is no group.

    Args:
        name: Of the question, the same in all processes and asked once.
        value: Asked in the first process alone.
    """
    if not dist.is_initialized():
        return value()
    store = _get_default_store()
    if dist.get_rank() == 0:
        store.set(name, value())
    told: bytes = store.get(name)
    return told.decode()


def _same_everywhere(store: Store, name: str, value: str, rank: int, size: int) -> None:
    store.set(f"{name}/{rank}", value)
    found = [store.get(f"{name}/{other}").decode() for other in range(size)]
    if len(set(found)) > 1:
        raise TrainingError(
            f"the processes differ in their {name}: {', '.join(found)}",
            code="TG0416",
            hint="train.processes must not be more than there are cards; CUDA_VISIBLE_DEVICES names those in use",
        )


class Replicas(Group):
    """One of several processes, each with the whole model."""

    def __init__(self) -> None:
        self.size, self.rank = dist.get_world_size(), dist.get_rank()
        self.device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")

    def load(
        self, folder: Path, *, key: str, model: nn.Module, optimizer: torch.optim.Optimizer, warn: Callable[[str], None]
    ) -> State | None:
        return self.in_turn(lambda: Group.load(self, folder, key=key, model=model, optimizer=optimizer, warn=warn))

    def in_turn(self, work: Callable[[], T]) -> T:
        """Do it in one process after the other: what touches files that all see."""
        for rank in range(self.size):
            if rank == self.rank:
                done = work()
            dist.barrier()
        return done

    def agree(self, step: int, model: nn.Module) -> None:
        sums = [tensor.double().sum() for tensor in self._compared(model)]
        mine = torch.stack([torch.tensor(float(step), dtype=torch.float64), *(each.cpu() for each in sums)])
        least, most = mine.to(self.device), mine.to(self.device)
        dist.all_reduce(least, dist.ReduceOp.MIN)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        if not bool((least == most).all()):
            what = "weights" if least[0] == most[0] else f"steps: {int(least[0])} and {int(most[0])}"
            raise TrainingError(
                f"the processes do not start from the same {what}",
                code="TG0416",
                hint="run again; if it stays so, a file of the base model or of a checkpoint changed in between",
            )

    def _compared(self, model: nn.Module) -> list[Tensor]:
        return list(trainable_tensors(model).values())

    def reseed(self, seed: int, step: int) -> None:
        # A function of step and rank: a resumed training needs no random state of every process.
        torch.manual_seed((seed * 1_000_003 + step) * self.size + self.rank)

    def batches(self, examples: Examples, places: Sequence[Sequence[int]]) -> list[Batch]:
        # Every size-th row: rows are ordered by length, so all processes get about as many tokens.
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


def _buckets(trained: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """In their order, up to `BUCKET` weights of one type together."""
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
    """The same rows, of which nothing counts: for a process that must take part and has nothing to add."""
    return replace(
        batch,
        rows=batch.rows[:0],
        columns=batch.columns[:0],
        targets=batch.targets[:0],
        n_tokens=0,
        ticket_ids=(),
    )
