"""The training process: `python -m tasks.train.worker job.json`.

Training runs in a separate process, so that it can have a deadline, be killed for its memory or crash in native code
without ending the run. It reports in files (see `tasks/train/job.py`) and ends with its parent. Started by
tasks/train/launch.py.
"""

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
from tasks.compute.children import die_with
from tasks.storage.disk_errors import name_disk_error
from tasks.storage.files import write_json
from tasks.train.job import ERROR, PROGRESS, ProgressLog, TrainJob
from tasks.train.memory import memory_advice
from tasks.train.part import predicted_memory, run_rank
from tasks.train.place import is_rank, run_ranks

RunJob = Callable[[Path, TrainJob, int], int]
"""Runs the job of this file while the descriptor's lock is held; returns the exit code."""


def run_here(job_file: Path, job: TrainJob, lock: int) -> int:
    """Train in this process, or in as many child processes as the job declares."""
    return _run_here(job) if job.spec.processes == 1 else run_ranks(job_file, job, lock=lock)


def main(job_file: Path, parent: int | None = None, *, lock_wait_s: float = 15.0, run: RunJob = run_here) -> int:
    """Run the job; returns the exit code: 0 done, `INTERRUPTED`, 1 with an `error.json`, anything else is a crash.

    Args:
        job_file: A `TrainJob` as JSON.
        parent: Process with which this one ends; None to outlive it.
        lock_wait_s: Seconds to wait for another process in the same folder: the worker of a killed run may take a
            moment to end.
        run: Runs the job.
    """
    if parent is not None:
        die_with(parent)
    job = TrainJob.model_validate(orjson.loads(job_file.read_bytes()))
    try:
        if is_rank():
            return _run_here(job)
        lock = _lock(job.scratch / "worker.lock", lock_wait_s)
        try:
            return run(job_file, job, lock)
        finally:
            os.close(lock)
    except TunegateError as error:
        _write_error(job.scratch, error)
    except Exception as error:
        known = known_error(error, job)
        if known is None:
            raise
        traceback.print_exc()
        _write_error(job.scratch, known)
    return 1


def _run_here(job: TrainJob) -> int:
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    return run_rank(job, stop=lambda: bool(received), log=ProgressLog(job.scratch / PROGRESS))


def known_error(error: Exception, job: TrainJob) -> TunegateError | None:
    """The error as one of ours if it is about memory or a full disk; None for any other."""
    return _out_of_memory(job) if _is_out_of_memory(error) else name_disk_error(error, job.scratch)


def _write_error(scratch: Path, error: TunegateError) -> None:
    write_json(scratch / ERROR, {"type": type(error).__name__, **error.to_json()})


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _out_of_memory(job: TrainJob) -> OutOfMemoryError:
    predicted = predicted_memory(job)
    estimate = f"; about {predicted['total'] / 2**30:.1f} GiB were predicted" if predicted else ""
    return OutOfMemoryError(f"the training ran out of memory{estimate}", code="TG0405", hint=memory_advice(job.spec))


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
                    "another training process is using this folder", code="TG0520", where=str(path.parent)
                ) from None
            time.sleep(0.1)
        else:
            return descriptor


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
