"""The training process: `python -m tasks.train.worker job.json`.

Training runs in a process of its own, so that it can be given a deadline, killed for memory or crash in native code
without taking the run with it. It answers by files (see `tasks/train/job.py`) and ends with its parent. It knows
nothing of pipelines. Started by tasks/train/launch.py.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import orjson

from schemas.errors import LockedError, TrainingError, TunegateError
from tasks.disk_errors import name_disk_error
from tasks.files import seal, write_json
from tasks.train.job import CHECKPOINTS, ERROR, FINAL, INTERRUPTED, MEMORY_FIGURES, PROGRESS, ProgressLog, TrainJob
from tasks.train.memory import memory_advice
from tasks.train.memory_check import device_at_hand, predict_parts
from tasks.train.ranks import is_rank, lead

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def main(job_file: Path, parent: int | None = None, *, lock_wait_s: float = 15.0) -> int:
    """Do the job; returns the exit code: 0 done, `INTERRUPTED`, 1 with an `error.json`, anything else is a crash.

    Args:
        job_file: A `TrainJob` as JSON.
        parent: Process with which this one shall die; None for a life of its own.
        lock_wait_s: Seconds to wait for another process in the same folder: the worker of a run that was killed
            may take a moment to go.
    """
    if parent is not None:
        _die_with(parent)
    job = TrainJob.model_validate(orjson.loads(job_file.read_bytes()))
    try:
        if is_rank():
            return _work(job)
        lock = _lock(job.scratch / "worker.lock", lock_wait_s)
        try:
            return _work(job) if job.spec.processes == 1 else lead(job_file, job, lock=lock)
        finally:
            os.close(lock)
    except TunegateError as error:
        _tell(job.scratch, error)
    except Exception as error:
        named = _out_of_memory(job) if _is_out_of_memory(error) else name_disk_error(error, job.scratch)
        if named is None:
            raise
        traceback.print_exc()
        _tell(job.scratch, named)
    return 1


def _work(job: TrainJob) -> int:
    _keep_freed_memory()
    import torch

    torch.set_num_threads(job.threads)
    from tasks.model.adapter import open_for_training, save_trained, trainable_tensors
    from tasks.train.answers import Answerer, collect_answers
    from tasks.train.distributed import join
    from tasks.train.engine import mean_last_tenth, train
    from tasks.train.trunk import open_trunk

    asked_to_stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: asked_to_stop.append(received))
    group = join(job.spec)
    log = ProgressLog(job.scratch / PROGRESS if group.leads else Path(os.devnull))
    model = group.prepare(open_for_training(job.model, job.spec))
    answer, answers = None, job.scratch / "answers" / job.key()[:16]
    if job.spec.validation_items and job.dataset.n_validation and group.leads:
        held_out = job.dataset.root / "validation"
        answer = Answerer(model, job.model, job.spec, validation=held_out, folder=answers)
    outcome = train(
        model,
        job.spec,
        train_folder=job.dataset.root / "train",
        validation_folder=job.dataset.root / "validation" if job.dataset.n_validation else None,
        checkpoints=job.scratch / CHECKPOINTS,
        key=job.key(),
        log=log,
        stop=lambda: bool(asked_to_stop),
        answer=answer,
        trunk=open_trunk(job, model, log=log) if job.spec.sharding == "none" else None,
        group=group,
    )
    peak = int(group.largest(_peak_bytes()))
    log.write(event="ended", finished=outcome.finished)
    if not outcome.finished:
        return INTERRUPTED
    model = group.finish(model, lambda: open_for_training(job.model, job.spec))
    if not group.leads:
        return 0
    aside = job.scratch / f".{FINAL}.tmp"
    for left_over in (aside, job.scratch / FINAL):
        shutil.rmtree(left_over, ignore_errors=True)
    aside.mkdir()
    save_trained(model, job.spec, base=job.model, out=aside)
    _write_curve(aside / "curves.parquet", outcome.curve)
    if answer is not None:
        validated = [int(row["step"] or 0) for row in outcome.curve if row["validation_loss"] is not None]
        collect_answers(answers, validated, aside)
    write_json(
        aside / "training.json",
        {
            "settings": job.spec.model_dump(mode="json"),
            "quantization": four_bits.model_dump(mode="json") if (four_bits := job.spec.four_bits()) else None,
            "base": {"uri": job.model.uri, "digest": job.model.digest},
            "dataset_digest": job.dataset.digest,
            "threads": job.threads,
            "predicted_memory": _predicted_memory(job),
            "n_trainable": sum(tensor.numel() for tensor in trainable_tensors(model).values()),
            "n_steps": outcome.n_steps,
            "n_tokens": outcome.n_tokens,
            "train_loss": mean_last_tenth(outcome.curve),
            "validation_loss": outcome.validation_loss,
            "kept_step": outcome.kept_step,
        },
    )
    seal(aside)
    aside.rename(job.scratch / FINAL)
    predicted = _predicted_memory(job)
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


def _predicted_memory(job: TrainJob) -> dict[str, int] | None:
    work = job.workload()
    return predict_parts(work, job.spec, device=device_at_hand()) if work else None


def _tell(scratch: Path, error: TunegateError) -> None:
    write_json(scratch / ERROR, {"type": type(error).__name__, **error.to_json()})


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _out_of_memory(job: TrainJob) -> TrainingError:
    predicted = _predicted_memory(job)
    told = f"; about {predicted['total'] / 2**30:.1f} GiB were predicted" if predicted else ""
    return TrainingError(f"the training ran out of memory{told}", code="TG0405", hint=memory_advice(job.spec))


def _lock(path: Path, wait_s: float) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise LockedError(
                    "another training process works in this folder", code="TG0540", where=str(path.parent)
                ) from None
            time.sleep(0.1)
        else:
            return descriptor


def _die_with(parent: int) -> None:
    """SIGKILL for this process when its parent dies; the kernel forgets a parent that died before, hence the look."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


def _keep_freed_memory() -> None:
    """Tell glibc to keep what is freed: else the logits' pages are given back and faulted in anew in each step.

    It costs no memory at the peak: measured 2.8 GB with and without on SmolLM2-135M at batch 8.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _peak_bytes() -> int:
    """Most memory that this process has held: of its card, else resident."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    if sys.platform == "linux":
        # ru_maxrss begins with the peak of the process that started this one; the kernel's own mark does not.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
