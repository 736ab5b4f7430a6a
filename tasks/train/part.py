"""One process's part of a training: load and train; the first process writes the result. The same wherever it runs."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tasks.storage.files import write_json
from tasks.storage.sealed_folder import sealed_folder
from tasks.train.job import ANSWERS, CHECKPOINTS, FINAL, INTERRUPTED, MEMORY_FIGURES, ProgressLog, TrainJob
from tasks.train.memory import detect_device, predict_parts
from tasks.train.own_forward import LARGE_TENSOR

if TYPE_CHECKING:
    from torch import nn

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class CheckpointDepot(Protocol):
    """A second place for checkpoints, for when the scratch folder may be lost with its machine."""

    def restore(self, scratch: Path) -> None:
        """Copy the newest complete checkpoints and their answers into the scratch folder."""

    def save(self, scratch: Path, checkpoint: Path) -> None:
        """Copy a sealed checkpoint and the answers so far; `restore` sees a complete copy or none."""


def run_rank(job: TrainJob, *, stop: Callable[[], bool], log: ProgressLog, depot: CheckpointDepot | None = None) -> int:
    """Train until the end or until stopped; the first process writes the sealed result to `job.scratch`.

    Args:
        job: The whole training; this process's part follows from its group (tasks/train/distributed.py).
        stop: Called after each step. If it returns true in one process, the whole group stops.
        log: Records each step, in the first process only.
        depot: A second place for checkpoints, besides `job.scratch`.

    Returns:
        0, or `INTERRUPTED` when it was stopped after saving a checkpoint.
    """
    _keep_freed_memory()
    import torch

    torch.set_num_threads(job.threads)
    from tasks.model.adapter import continue_from, left_out, open_for_training, save_trained, trainable_tensors
    from tasks.train.answers import Answerer, collect_answers
    from tasks.train.distributed import join
    from tasks.train.engine import mean_last_tenth, train
    from tasks.train.loop import Checkpoints, Hooks, TrainData
    from tasks.train.trunk import open_trunk

    group = join(job.spec)
    if not group.leads:
        log = ProgressLog(Path(os.devnull))
    if depot is not None:
        depot.restore(job.scratch)
        group.on_saved = partial(depot.save, job.scratch)

    def load(device: torch.device | None) -> nn.Module:
        opened = open_for_training(job.model, job.spec, device=device)
        if job.start is not None:
            continue_from(opened, job.start)
        return opened

    model = group.open(load)
    answer, answers = None, job.scratch / ANSWERS / job.key()[:16]
    if job.spec.validation_items and job.dataset.n_validation and group.leads:
        held_out = job.dataset.root / "validation"
        answer = Answerer(model, job.model, job.spec, validation=held_out, folder=answers)
    if job.spec.method != "full" and job.spec.adapter.target_modules == "all-linear" and (names := left_out(model)):
        log.write(event="warning", message=f"all-linear leaves out {', '.join(names)}, as PEFT does")
    outcome = train(
        model,
        job.spec,
        data=TrainData(
            job.dataset.root / "train",
            job.dataset.root / "validation" if job.dataset.n_validation else None,
            open_trunk(job, model, log=log) if job.spec.sharding == "none" else None,
        ),
        checkpoints=Checkpoints(job.scratch / CHECKPOINTS, job.key()),
        hooks=Hooks(log, stop, answer),
        group=group,
    )
    peak = int(group.largest(_peak_bytes()))
    log.write(event="ended", finished=outcome.finished)
    if not outcome.finished:
        return INTERRUPTED
    model = group.finish(model, load)
    if not group.leads:
        return 0
    shutil.rmtree(job.scratch / FINAL, ignore_errors=True)
    with sealed_folder(job.scratch / FINAL) as out:
        save_trained(model, job.spec, base=job.model, out=out)
        _write_curve(out / "curves.parquet", outcome.curve)
        if answer is not None:
            validated = [int(row["step"] or 0) for row in outcome.curve if row["validation_loss"] is not None]
            collect_answers(answers, validated, out)
        write_json(
            out / "training.json",
            {
                "settings": job.spec.model_dump(mode="json"),
                "quantization": four_bits.model_dump(mode="json") if (four_bits := job.spec.four_bits()) else None,
                "base": {"uri": job.model.uri, "digest": job.model.digest},
                "dataset_digest": job.dataset.digest,
                "start": job.start.digest if job.start else None,
                "threads": job.threads,
                "predicted_memory": predicted_memory(job),
                "n_trainable": sum(tensor.numel() for tensor in trainable_tensors(model).values()),
                "n_steps": outcome.n_steps,
                "n_tokens": outcome.n_tokens,
                "train_loss": mean_last_tenth(outcome.curve),
                "validation_loss": outcome.validation_loss,
                "kept_step": outcome.kept_step,
            },
        )
    predicted = predicted_memory(job)
    figures = zip(MEMORY_FIGURES, (predicted and predicted["total"], peak), strict=True)
    log.write(event="memory", step=outcome.n_steps, **dict(figures))
    return 0


def _write_curve(path: Path, curve: list[dict[str, float | int | None]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("step", pa.int32()),
            ("loss", pa.float64()),
            ("learning_rate", pa.float64()),
            ("grad_norm", pa.float64()),
            ("n_tokens", pa.int64()),
            ("validation_loss", pa.float64()),
        ]
    )
    pq.write_table(pa.Table.from_pylist(curve, schema=schema), path, compression="zstd")


def predicted_memory(job: TrainJob) -> dict[str, int] | None:
    work = job.workload()
    return predict_parts(work, job.spec, device=detect_device()) if work else None


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory of tensors below 32 MiB: the next step takes it again, without faults for its pages.

    Larger ones (logits of a model's own forward, moments of embeddings) go back to the system. Kept, their places are
    cut by small tensors that stay, and the next step finds no room for them: measured 1.1 GB for 0.26 GB of logits.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_TENSOR)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _peak_bytes() -> int:
    """Peak memory of this process: on its card, else resident."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    if sys.platform == "linux":
        # ru_maxrss starts at the parent process's peak; VmHWM does not.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
