"""The frozen trunk: the output of the layers below the lowest adapted one, computed once and cached on disk.

With adapters on the upper layers only, that output is the same in every epoch and in every training on this base and
data set. Its folder is named by a key over everything that determines it, and gets its name once it is complete and
sealed.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor, nn

from schemas.errors import TrainingError
from tasks.storage.failpoint import reach
from tasks.storage.files import sha256_json, write_json
from tasks.storage.sealed_folder import is_whole, remove_unfinished, sealed_folder
from tasks.train.batches import Batch, Examples, LayerOutput, shared_prefix, steps_per_epoch
from tasks.train.fast.decoder import FastDecoder, is_fast
from tasks.train.job import ProgressLog, TrainJob
from tasks.train.model_shapes import not_fast_error

SPLITS = ("train", "validation")
FILL = 16
"""Examples that go through the layers together; a fixed number, so that equal data give equal bytes."""
_FORMAT = 1


@dataclass(frozen=True)
class TrunkRows:
    """States of one split, memory-mapped: [prefix shared by all examples | each example's own rows, in order]."""

    n_layers: int
    n_prefix: int
    starts: tuple[int, ...]
    """First own row of each example, and the end of the last."""
    states: Tensor
    """(rows, d), read-only."""

    def take(self, indices: Sequence[int], seq: int) -> LayerOutput:
        """See `tasks.train.batches.TrunkStates`."""
        states = self.states.new_zeros(len(indices), seq, self.states.shape[-1])
        states[:, : self.n_prefix] = self.states[: min(self.n_prefix, seq)]
        for row, index in enumerate(indices):
            own = self.states[self.starts[index] : self.starts[index + 1]]
            states[row, self.n_prefix : self.n_prefix + len(own)] = own
        return LayerOutput(self.n_layers, states)


@dataclass(frozen=True)
class Trunk:
    """A complete folder of states."""

    root: Path

    def split(self, name: str) -> TrunkRows:
        """Open the states of a split."""
        header: dict[str, Any] = orjson.loads((self.root / f"{name}.json").read_bytes())
        dtype = getattr(torch, header["dtype"])
        starts, width = tuple(header["starts"]), header["width"]
        path = str(self.root / f"{name}.bin")
        flat = torch.from_file(path, shared=False, size=starts[-1] * width, dtype=dtype)
        return TrunkRows(header["n_layers"], header["n_prefix"], starts, flat.view(-1, width))


def frozen_layers(model: nn.Module) -> int:
    """Number of layers below the lowest trainable one; all of them when nothing trains."""
    layers = FastDecoder.layers_of(model)
    trains = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in layers]
    return trains.index(True) if True in trains else len(trains)


def open_trunk(job: TrainJob, model: nn.Module, *, log: ProgressLog) -> Trunk | None:
    """The frozen trunk's output for the job's data set, computed if it is missing; None if it is not used.

    Trainings that share `job.trunks` wait for the one that computes. A killed computation never looks complete.

    Args:
        job: Base, data set, settings, and the folder for trunks (by default one in its scratch folder).
        model: From `open_for_training` for this job.
        log: Records where the states are and whether they were computed now (event `trunk`).

    Raises:
        ConfigError: TG0111, `cache_trunk: on` for a model that the fast path does not support.
        TrainingError: TG0423, `cache_trunk: on` and the disk has no room.
    """
    n_layers = _wanted_layers(job, model)
    if not n_layers:
        return None
    folder = job.trunks or job.scratch / "trunks"
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / _key(job, model, n_layers)
    with _locked(folder / f".{root.name}.lock"):
        filled = not is_whole(root)
        if filled:
            if not _has_room(job, model, folder, log):
                return None
            _fill(root, job, FastDecoder(model, recompute=False), n_layers)
    log.write(event="trunk", path=str(root), filled=filled)
    return Trunk(root)


def _wanted_layers(job: TrainJob, model: nn.Module) -> int:
    """Number of layers to compute once; 0 if the settings disable it or it would not pay."""
    spec = job.spec
    if spec.cache_trunk == "off" or spec.method == "full":
        return 0
    if not is_fast(model):
        if spec.cache_trunk == "on":
            raise not_fast_error(model.config.model_type)  # type: ignore[union-attr]
        return 0
    if spec.cache_trunk == "auto" and job.trunks is None:
        accumulation = spec.gradient_accumulation_steps
        each = steps_per_epoch(job.dataset.n_train, batch_size=spec.batch_size, accumulation=accumulation)
        if min(each * spec.epochs, spec.max_steps or each * spec.epochs) <= each:
            return 0
    return frozen_layers(model)


def _key(job: TrainJob, model: nn.Module, n_layers: int) -> str:
    """sha256 of everything that determines the bytes: a product's rounding may depend on threads and version."""
    return sha256_json(
        {
            "format": _FORMAT,
            "base": job.model.digest,
            "dataset": job.dataset.digest,
            "n_layers": n_layers,
            "dtype": str(FastDecoder.embedding_of(model).dtype),
            "quantization": four_bits.model_dump(mode="json") if (four_bits := job.spec.four_bits()) else None,
            "threads": job.threads,
            "torch": torch.__version__,
        }
    )


def _has_room(job: TrainJob, model: nn.Module, folder: Path, log: ProgressLog) -> bool:
    """Whether it takes at most half of the free disk; an upper estimate that ignores the shared prefix."""
    embedding = FastDecoder.embedding_of(model)
    share = 1 + job.dataset.n_validation / max(1, job.dataset.n_train)
    needed = int(job.dataset.n_tokens * share) * embedding.shape[1] * embedding.element_size()
    free = shutil.disk_usage(folder).free
    if 2 * needed <= free:
        return True
    message = f"the frozen trunk's output takes up to {needed / 2**30:.2f} GiB, and {free / 2**30:.2f} GiB are free"
    if job.spec.cache_trunk == "on":
        raise TrainingError(message, code="TG0423", where=str(folder), hint="free space, or set train.cache_trunk: off")
    log.write(event="warning", message=f"{message}; the training continues without it")
    return False


def _fill(root: Path, job: TrainJob, decoder: FastDecoder, n_layers: int) -> None:
    shutil.rmtree(root, ignore_errors=True)
    remove_unfinished(root)
    with sealed_folder(root) as folder:
        for split in SPLITS:
            if split == "train" or job.dataset.n_validation:
                _write_split(folder, split, Examples(job.dataset.root / split), decoder, n_layers)
        reach("train.trunk.written")


def _write_split(folder: Path, split: str, examples: Examples, decoder: FastDecoder, n_layers: int) -> None:
    """Write the states of a split in the order of its examples; compute them in order of length."""
    n_prefix = shared_prefix(_in_order(examples))
    starts = [n_prefix]
    for length in examples.lengths:
        # Only an example without loss can be shorter than the prefix, and its states are never read.
        starts.append(starts[-1] + max(0, length - n_prefix))
    by_length = sorted(range(len(examples)), key=lambda index: -examples.lengths[index])
    has_prefix = False
    width = decoder.embedding.shape[1]
    n_bytes = width * decoder.embedding.element_size()
    with (folder / f"{split}.bin").open("wb") as stream, torch.no_grad():
        stream.truncate(starts[-1] * n_bytes)
        for first in range(0, len(by_length), FILL):
            indices = by_length[first : first + FILL]
            batch = examples.batch(indices)
            with decoder.sharing([batch]):
                states = decoder.states_after(batch, n_layers)
            # Take the prefix from the first example with loss: others have no states.
            for row in batch.rows[:1].tolist() if not has_prefix else ():
                stream.seek(0)
                stream.write(_bytes(states[row, :n_prefix]))
                has_prefix = True
            for row, index in enumerate(indices):
                stream.seek(starts[index] * n_bytes)
                stream.write(_bytes(states[row, n_prefix : examples.lengths[index]]))
    header = {"n_layers": n_layers, "n_prefix": n_prefix, "starts": starts, "width": width}
    write_json(folder / f"{split}.json", header | {"dtype": str(decoder.embedding.dtype).removeprefix("torch.")})


def _in_order(examples: Examples) -> Iterator[Batch]:
    for first in range(0, len(examples), FILL):
        yield examples.batch(range(first, min(first + FILL, len(examples))))


def _bytes(states: Tensor) -> bytes:
    return states.contiguous().view(torch.uint8).numpy().tobytes()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file; the system releases it when the process dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
