"""What each worker of a TorchTrainer runs: the same part of a training as a process on one machine.

Data set, base model and checkpoints come from the shared storage into a folder on this node, which is removed after the
training. Workers and driver communicate through a mailbox, an actor on the driver's node that ends with the driver:
figures and errors go to the driver, a request to stop goes to the workers. Started by tasks/cluster/train_driver.py.
"""

import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import TunegateError
from tasks.cluster.connect import Failed, pack_error
from tasks.cluster.depot import Depot, NodeFolder
from tasks.cluster.shared import Shared
from tasks.storage.files import write_json
from tasks.storage.sealed_folder import seal
from tasks.train.job import FINAL, ProgressLog, TrainJob
from tasks.train.memory import check_memory

POLL_S = 0.5
"""Seconds between the first worker's checks for a request to stop."""
RESULT = "result"
"""The metric of a `ray.train.Result` that holds the address of the sealed result."""


class Mailbox:
    """Holds messages until the driver takes them."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []
        self._failed: Failed | None = None
        self._stopping = False

    def post(self, entry: dict[str, Any]) -> None:
        """Add an entry of `tasks.train.job.ProgressLog`, or `crash` (rank, trace), which goes only to worker.log."""
        self._entries.append(entry)

    def fail(self, failed: Failed) -> None:
        """Record an error that a retry would repeat. Only the first counts: others may follow from it."""
        self._failed = self._failed or failed

    def take(self) -> tuple[list[dict[str, Any]], Failed | None]:
        """The entries since the last call, and the error if there is one."""
        entries, self._entries = self._entries, []
        return entries, self._failed

    def stop(self) -> None:
        """Ask workers to save a checkpoint and end."""
        self._stopping = True

    def stopping(self) -> bool:
        """Whether they should."""
        return self._stopping


def train_part(config: dict[str, Any]) -> int:
    """Run this worker's part; the first one uploads the sealed result to the shared storage and reports its address.

    Args:
        config: `job` (a `TrainJob` as JSON), addresses `dataset` and `model`, `shared` (URL) and `mailbox` (handle).

    Returns:
        As `tasks.train.part.run_rank`.

    Raises:
        TunegateError: after it was posted to the mailbox; the driver then ends the training.
    """
    import ray
    from ray import train

    from tasks.train.distributed import value_of_leader
    from tasks.train.part import run_rank
    from tasks.train.worker import known_error

    context = train.get_context()
    leads = context.get_world_rank() == 0
    job, box = TrainJob.model_validate(config["job"]), config["mailbox"]
    if leads:
        box.post.remote({"event": "attempt"})
    shared = Shared(config["shared"])
    log = MailLog(Path(os.devnull), box.post.remote)
    depot = Depot(
        shared,
        job.key(),
        from_leader=value_of_leader,
        on_saved=lambda step: log.write(event="kept", step=step),
        warn=lambda message: log.write(event="warning", message=message),
    )
    try:
        address = depot.result()
        code = 0
        if address is None:
            with NodeFolder(job.key()) as folder:
                here = _prepare(folder, job, shared, config, rank=context.get_world_rank())
                _check_memory(here, leads=context.get_local_rank() == 0, n_here=context.get_local_world_size())
                code = run_rank(here, stop=_stop_requested(box) if leads else lambda: False, log=log, depot=depot)
                if code == 0 and leads:
                    address = depot.save_result(here.scratch / FINAL)
    except Exception as error:
        known = error if isinstance(error, TunegateError) else known_error(error, job)
        if known is None:
            box.post.remote({"event": "crash", "rank": context.get_world_rank(), "trace": traceback.format_exc()})
            raise
        ray.get(box.fail.remote(pack_error(known)))
        raise
    if code == 0:
        _report(train, address, leads=leads)
    return code


@dataclass(frozen=True)
class MailLog(ProgressLog):
    """A progress log that is read on another machine."""

    post: Callable[[dict[str, Any]], object]

    def write(self, **entry: Any) -> None:
        self.post(entry)


def _prepare(folder: NodeFolder, job: TrainJob, shared: Shared, config: dict[str, Any], *, rank: int) -> TrainJob:
    """Download the job's inputs to this node and give it an empty scratch folder of this worker's own."""
    from tasks.train.launch import caches_trunk

    dataset = folder.once("dataset", lambda place: shared.download(config["dataset"], place))
    # The folder belongs to this process: a worker of an attempt that Ray is ending may still write to its own.
    scratch = folder.root / f"rank-{rank}-{os.getpid()}"
    scratch.mkdir()
    return job.model_copy(
        update={
            "dataset": job.dataset.model_copy(update={"root": dataset}),
            "model": job.model.model_copy(update={"root": shared.cached(config["model"])}),
            "start": job.start and job.start.model_copy(update={"root": shared.cached(config["start"])}),
            "scratch": scratch,
            "trunks": folder.root / "trunks" if caches_trunk(job.spec) else None,
        }
    )


def _check_memory(job: TrainJob, *, leads: bool, n_here: int) -> None:
    """Let one worker per node check the memory before anything is loaded; the others wait."""
    from tasks.train.distributed import wait_for_all

    if leads:
        check_memory(job.workload(), job.spec, here=n_here)
    wait_for_all()


def _stop_requested(box: Any) -> Callable[[], bool]:
    """A function that says whether the driver asks to stop; a thread polls, so that no training step has to wait."""
    import ray

    requested = threading.Event()

    def poll() -> None:
        while not requested.is_set():
            try:
                if ray.get(box.stopping.remote()):
                    requested.set()
            except ray.exceptions.RayError:
                return  # the driver has ended, and Ray ends its workers
            time.sleep(POLL_S)

    threading.Thread(target=poll, daemon=True, name="stop-requested").start()
    return requested.is_set


def _report(train: Any, address: str | None, *, leads: bool) -> None:
    """Synchronise all workers. Ray keeps metrics only with a checkpoint, so the first one reports a small one."""
    if not leads:
        train.report({})
        return
    with tempfile.TemporaryDirectory() as place:
        write_json(Path(place) / "result.json", {RESULT: address})
        seal(Path(place))
        train.report({RESULT: address}, checkpoint=train.Checkpoint.from_directory(place))
