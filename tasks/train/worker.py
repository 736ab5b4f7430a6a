"""The training process: `python -m tasks.train.worker job.json`.

Training runs in a process of its own, so that it can be given a deadline, killed for memory or crash in native code
without taking the run with it. It answers by files (see `tasks/train/job.py`) and ends with its parent. It knows
nothing of pipelines. Started by tasks/train/launch.py.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import orjson

from schemas.errors import LockedError, OutOfMemoryError, TunegateError
from tasks.children import die_with
from tasks.disk_errors import name_disk_error
from tasks.files import write_json
from tasks.train.job import ERROR, PROGRESS, ProgressLog, TrainJob
from tasks.train.memory import memory_advice
from tasks.train.part import do_part, predicted_memory
from tasks.train.place import is_rank, lead

Lead = Callable[[Path, TrainJob, int], int]
"""Has the job of this file done, while the descriptor's lock is held; returns the exit code."""


def lead_here(job_file: Path, job: TrainJob, lock: int) -> int:
    """Train in this process, or in as many more as the job asks for."""
    return _work(job) if job.spec.processes == 1 else lead(job_file, job, lock=lock)


def main(job_file: Path, parent: int | None = None, *, lock_wait_s: float = 15.0, work: Lead = lead_here) -> int:
    """Do the job; returns the exit code: 0 done, `INTERRUPTED`, 1 with an `error.json`, anything else is a crash.

    Args:
        job_file: A `TrainJob` as JSON.
        parent: Process with which this one shall die; None for a life of its own.
        lock_wait_s: Seconds to wait for another process in the same folder: the worker of a run that was killed
            may take a moment to go.
        work: Who has it done.
    """
    if parent is not None:
        die_with(parent)
    job = TrainJob.model_validate(orjson.loads(job_file.read_bytes()))
    try:
        if is_rank():
            return _work(job)
        lock = _lock(job.scratch / "worker.lock", lock_wait_s)
        try:
            return work(job_file, job, lock)
        finally:
            os.close(lock)
    except TunegateError as error:
        _tell(job.scratch, error)
    except Exception as error:
        named = named_error(error, job)
        if named is None:
            raise
        traceback.print_exc()
        _tell(job.scratch, named)
    return 1


def _work(job: TrainJob) -> int:
    asked_to_stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: asked_to_stop.append(received))
    return do_part(job, stop=lambda: bool(asked_to_stop), log=ProgressLog(job.scratch / PROGRESS))


def named_error(error: Exception, job: TrainJob) -> TunegateError | None:
    """The error in our words where it speaks of memory or a full disk; None for any other."""
    return _out_of_memory(job) if _is_out_of_memory(error) else name_disk_error(error, job.scratch)


def _tell(scratch: Path, error: TunegateError) -> None:
    write_json(scratch / ERROR, {"type": type(error).__name__, **error.to_json()})


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _out_of_memory(job: TrainJob) -> OutOfMemoryError:
    predicted = predicted_memory(job)
    told = f"; about {predicted['total'] / 2**30:.1f} GiB were predicted" if predicted else ""
    return OutOfMemoryError(f"the training ran out of memory{told}", code="TG0405", hint=memory_advice(job.spec))


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
                    "another training process works in this folder", code="TG0520", where=str(path.parent)
                ) from None
            time.sleep(0.1)
        else:
            return descriptor


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
