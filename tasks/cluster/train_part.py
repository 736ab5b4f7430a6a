"""What each worker of a TorchTrainer runs: the very part of a training that a process on one machine runs.

Data set, base model and checkpoints come through the shared storage into a folder of this node, which goes with the
training. Between the workers and their driver lies a mailbox, an actor on the driver's node that ends with the driver:
figures and errors go one way, the wish to stop the other. Sent out by tasks/cluster/train_driver.py.
"""

from __future__ import annotations

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
from tasks.cluster.connect import Failed, packed
from tasks.cluster.depot import Depot, NodeFolder
from tasks.cluster.shared import Shared
from tasks.files import seal, write_json
from tasks.train.job import FINAL, ProgressLog, TrainJob
from tasks.train.memory import check_memory

POLL_S = 0.5
"""How often the first worker asks whether it shall stop."""
RESULT = "result"
"""The metric of a `ray.train.Result` that is the address of the sealed result."""


class Mailbox:
    """Holds what was told until it is taken."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []
        self._failed: Failed | None = None
        self._stopping = False

    def tell(self, entry: dict[str, Any]) -> None:
        """An entry of `tasks.train.job.ProgressLog`, or `crash` (rank, trace), which is for the driver's log alone."""
        self._entries.append(entry)

    def fail(self, failed: Failed) -> None:
        """An error that would come again. The first one counts: the others' may follow from it."""
        self._failed = self._failed or failed

    def take(self) -> tuple[list[dict[str, Any]], Failed | None]:
        """What was told since the last time, and the error if there is one."""
        entries, self._entries = self._entries, []
        return entries, self._failed

    def stop(self) -> None:
        """Workers shall save a checkpoint and end."""
        self._stopping = True

    def stopping(self) -> bool:
        """Shall they?"""
        return self._stopping


def train_part(told: dict[str, Any]) -> int:
    """Do this worker's part; the first one puts the sealed result on the shared storage and reports where it is.

    Args:
        told: `job` (a `TrainJob` as JSON), the addresses `dataset` and `model`, `shared` (URL) and `mailbox` (handle).

    Returns:
        As `tasks.train.part.do_part`.

    Raises:
        TunegateError: What it says is told to the mailbox first; the driver ends the training then.
    """
    from ray import train

    from tasks.train.distributed import agreed
    from tasks.train.part import do_part
    from tasks.train.worker import named_error

    context = train.get_context()
    leads = context.get_world_rank() == 0
    job, box = TrainJob.model_validate(told["job"]), told["mailbox"]
    if leads:
        box.tell.remote({"event": "attempt"})
    shared = Shared(told["shared"])
    log = MailLog(Path(os.devnull), box.tell.remote)
    depot = Depot(
        shared,
        job.key(),
        agreed=agreed,
        told=lambda step: log.write(event="kept", step=step),
        warn=lambda message: log.write(event="warning", message=message),
    )
    try:
        address = depot.result()
        code = 0
        if address is None:
            with NodeFolder(job.key()) as folder:
                here = _bring(folder, job, shared, told, rank=context.get_world_rank())
                _check_memory(here, leads=context.get_local_rank() == 0, n_here=context.get_local_world_size())
                code = do_part(here, stop=_asked(box) if leads else lambda: False, log=log, depot=depot)
                if code == 0 and leads:
                    address = depot.keep_result(here.scratch / FINAL)
    except Exception as error:
        named = error if isinstance(error, TunegateError) else named_error(error, job)
        if named is None:
            box.tell.remote({"event": "crash", "rank": context.get_world_rank(), "trace": traceback.format_exc()})
            raise
        _tell(box, named)
        raise
    if code == 0:
        _report(train, address, leads=leads)
    return code


@dataclass(frozen=True)
class MailLog(ProgressLog):
    """A progress log that is read on another machine."""

    tell: Callable[[dict[str, Any]], object]

    def write(self, **entry: Any) -> None:
        self.tell(entry)


def _bring(folder: NodeFolder, job: TrainJob, shared: Shared, told: dict[str, Any], *, rank: int) -> TrainJob:
    """The job with everything in its place on this node; the scratch folder is this worker's own, and empty."""
    from tasks.train.launch import caches_trunk

    dataset = folder.once("dataset", lambda place: shared.bring(told["dataset"], place))
    # Of this process alone: one of an attempt that Ray is just ending may still write into its own.
    scratch = folder.root / f"rank-{rank}-{os.getpid()}"
    scratch.mkdir()
    return job.model_copy(
        update={
            "dataset": job.dataset.model_copy(update={"root": dataset}),
            "model": job.model.model_copy(update={"root": shared.cached(told["model"])}),
            "scratch": scratch,
            "trunks": folder.root / "trunks" if caches_trunk(job.spec) else None,
        }
    )


def _check_memory(job: TrainJob, *, leads: bool, n_here: int) -> None:
    """Before anything is loaded on this node, by one worker of it; the others wait."""
    from tasks.train.distributed import wait_for_all

    if leads:
        check_memory(job.workload(), job.spec, here=n_here)
    wait_for_all()


def _asked(box: Any) -> Callable[[], bool]:
    """Whether the driver has asked to stop, as a thread hears it: a step waits for nobody."""
    import ray

    heard = threading.Event()

    def listen() -> None:
        while not heard.is_set():
            try:
                if ray.get(box.stopping.remote()):
                    heard.set()
            except ray.exceptions.RayError:
                return  # the driver is gone, and Ray ends its workers
            time.sleep(POLL_S)

    threading.Thread(target=listen, daemon=True, name="asked-to-stop").start()
    return heard.is_set


def _tell(box: Any, error: TunegateError) -> None:
    import ray

    ray.get(box.fail.remote(packed(error)))


def _report(train: Any, address: str | None, *, leads: bool) -> None:
    """All workers meet here. Ray keeps metrics only with a checkpoint, so the first one hands in a small one."""
    if not leads:
        train.report({})
        return
    with tempfile.TemporaryDirectory() as place:
        write_json(Path(place) / "result.json", {RESULT: address})
        seal(Path(place))
        train.report({RESULT: address}, checkpoint=train.Checkpoint.from_directory(place))
