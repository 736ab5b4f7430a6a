"""Training on a Ray cluster: how tasks/train/launch.py starts it, and the process that drives it.

The process is `python -m tasks.cluster.train_driver job.json parent`. Like tasks/train/worker.py it is started and
watched by tasks/train/launch.py, reports in the files of tasks/train/job.py and ends with its parent, and Ray then ends
its workers. The workers run tasks/cluster/train_part.py. Checkpoints outlive both: a new attempt resumes from the
newest complete one. The module imports no ray: `flows/workspace/ray_cluster.py` creates `TrainingOnRay`.
"""

import os
import queue
import secrets
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import TrainingError
from tasks.cluster.connect import Failed, connect, translate_cluster_errors, unpack_error
from tasks.cluster.depot import Depot, clear_marked, folder_of, mark
from tasks.cluster.nodes import TrainWorkers, check_nodes, workers_for
from tasks.cluster.shared import Shared
from tasks.cluster.train_part import RESULT, Mailbox, train_part
from tasks.compute.spread import ClusterPlace
from tasks.storage.sealed_folder import verify
from tasks.train.job import FINAL, INTERRUPTED, PROGRESS, ProgressLog, TrainJob
from tasks.train.place import library_settings, our_modules, python_module
from tasks.train.worker import main

ADDRESS, SHARED = "RAY_ADDRESS", "TUNEGATE_SHARED"
RAY_TRAIN = {
    # Ray notices a lost worker and the end of a training within this time.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # A training that waits for others to finish need not request its workers again every minute.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
}
"""Defaults for Ray Train; the environment overrides them."""
ATTEMPTS = 4
"""How often workers may be lost in a row without a new checkpoint."""
_POLL_S = 0.3


@dataclass(frozen=True)
class TrainingOnRay:
    """See `tasks.train.place.TrainingPlace`."""

    place: ClusterPlace

    def command(self, job_file: Path) -> list[str]:
        return python_module("tasks.cluster.train_driver", str(job_file), str(os.getpid()))

    def environment(self, environ: Mapping[str, str], *, threads: int) -> dict[str, str]:
        """The environment with its secrets: the cluster's token and the storage's credentials.

        The process loads no model, and Ray gives its workers the environment of their nodes.
        """
        own = {ADDRESS: self.place.address, SHARED: self.place.shared}
        return {**RAY_TRAIN, **environ, **our_modules(environ), **library_settings(threads=threads), **own}

    def check(self, job: TrainJob) -> None:
        """Do nothing: each node checks its own memory before it loads anything."""


def run_on_ray(_job_file: Path, job: TrainJob, _lock: int) -> int:
    """Run the job on workers of the cluster; returns the exit code of the training.

    Raises:
        TunegateError: as a worker reported it; TG0723, an error of the cluster.
    """
    signals: list[int] = []
    place = ClusterPlace(os.environ[ADDRESS], os.environ[SHARED])
    connect(place)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.append(received))
    shared = Shared(place.shared)
    depot = Depot(shared, job.key())
    with translate_cluster_errors("train"):
        address = depot.result()
        if address is None:
            check_nodes(place)
            result = _Training(job, shared, signals).run()
            if not isinstance(result, str):
                return result
            address = result
    shutil.rmtree(job.scratch / FINAL, ignore_errors=True)
    verify(shared.download(address, job.scratch / FINAL))
    clear_marked(job.scratch)
    depot.clear()
    return 0


def result_of(result: Any) -> str | int:
    """Address of the sealed result, or the exit code of a training that was stopped.

    Args:
        result: A `ray.train.Result`.

    Raises:
        TrainingError: TG0407, Ray calls it done but it has no metrics.
    """
    if result.return_value == INTERRUPTED:
        return INTERRUPTED
    metrics = result.metrics or {}
    address = metrics.get(RESULT)
    if not isinstance(address, str):
        raise TrainingError(
            "Ray reports that the training is done, but its result has no metrics, so its weights cannot be found",
            code="TG0407",
            where="train",
            hint="run again: it resumes from the last checkpoint",
        )
    return address


class _Training:
    """A TorchTrainer in a thread, and the messages of its workers."""

    def __init__(self, job: TrainJob, shared: Shared, signals: list[int]) -> None:
        import ray

        self._job, self._shared, self._signals = job, shared, signals
        self._log = ProgressLog(job.scratch / PROGRESS)
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._attempts, self._lost = 0, ""
        here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        self._box = ray.remote(num_cpus=0, label_selector=here)(Mailbox).remote()

    def run(self) -> str | int:
        """The address of the result, or the exit code of a training that was stopped.

        Raises:
            TunegateError: as a worker reported it.
            TrainingError: TG0407, workers were lost `ATTEMPTS` times without a new checkpoint.
        """
        job = self._job
        clear_marked(job.scratch, unless=job.key())  # an attempt with larger batches that ran out of memory
        dataset = self._shared.put(job.dataset.root)
        mark(job.scratch, self._shared.url, job.key(), dataset)
        try:
            config = {
                "job": job.model_dump(mode="json"),
                "dataset": dataset,
                "model": self._shared.put(job.model.root),
                "start": None if job.start is None else self._shared.put(job.start.root),
                "shared": self._shared.url,
                "mailbox": self._box,
            }
            trainer = _trainer(config, workers_for(job.spec, job.threads), self._shared, self._box, job)
            threading.Thread(target=self._fit, args=(trainer,), daemon=True, name="ray-train").start()
            return self._watch()
        finally:
            self._shared.remove(dataset)  # it holds token ids of tickets

    def _fit(self, trainer: Any) -> None:
        """Run the trainer in its own thread: in the main thread Ray handles SIGINT and would block the mailbox."""
        try:
            self._ended.put(trainer.fit())
        except Exception as error:
            traceback.print_exc()
            self._ended.put(error)

    def _watch(self) -> str | int:
        is_stopping = False
        while True:
            if self._signals and not is_stopping:
                self._box.stop.remote()
                is_stopping = True
            try:
                ended = self._ended.get(timeout=_POLL_S)
            except queue.Empty:
                ended = None
            if self._record_messages():
                return INTERRUPTED
            if isinstance(ended, Exception):
                raise self._crash(f"Ray has given up the training: {type(ended).__name__}") from ended
            if ended is not None:
                return result_of(ended)

    def _record_messages(self) -> bool:
        """Write the workers' messages to the log; True once they have stopped on request."""
        import ray

        failed: Failed | None
        entries, failed = ray.get(self._box.take.remote())
        stopped = False
        for entry in entries:
            if entry["event"] == "crash":  # only to worker.log, like the traceback of a local process
                print(f"worker {entry['rank']}: {entry['trace']}", file=sys.stderr, flush=True)  # noqa: T201
                continue
            self._log.write(**entry)
            match entry["event"]:
                case "attempt":
                    self._attempts += 1
                case "kept":
                    self._attempts = 1
                case "lost":
                    self._lost = entry["why"]
                case "ended":
                    stopped = not entry["finished"]
        if failed is not None:
            raise unpack_error(failed)
        if self._attempts > ATTEMPTS:
            raise self._crash(f"the workers were lost {ATTEMPTS} times in a row without a new checkpoint")
        return stopped

    def _crash(self, what: str) -> TrainingError:
        return TrainingError(
            f"{what}; the last loss: {self._lost}" if self._lost else what,
            code="TG0407",
            where=str(self._job.scratch),
            hint="see `ray status` and the workers' logs; run again: it resumes from the last checkpoint",
        )


def _trainer(config: dict[str, Any], workers: TrainWorkers, shared: Shared, box: Any, job: TrainJob) -> Any:
    import fsspec
    import pyarrow.fs
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    files, base = fsspec.core.url_to_fs(shared.url)
    settings = library_settings(threads=job.threads) | ({} if workers.cards else {"CUDA_VISIBLE_DEVICES": ""})
    return TorchTrainer(
        train_part,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if workers.cards else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=job.spec.processes, use_gpu=workers.cards, resources_per_worker=workers.resources
        ),
        run_config=RunConfig(
            # A new name for each attempt: Ray would otherwise continue another one's reports.
            name=secrets.token_hex(8),
            storage_path=f"{base}/{folder_of(job.key())}/ray",
            storage_filesystem=pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(files)),
            # `ATTEMPTS` sets the limit, by progress in between: nodes may come and go for days.
            failure_config=FailureConfig(max_failures=-1),
            callbacks=[_losses(box)],
            worker_runtime_env={"env_vars": settings},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )


def _losses(box: Any) -> Any:
    """A callback that reports why workers were lost; it runs in Ray's controller process.

    The class is defined here because its base imports ray.
    """
    from ray.exceptions import RayError
    from ray.train import UserCallback

    class WorkerLosses(UserCallback):  # type: ignore[misc]
        """Called by Ray after each failure of workers."""

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            """Report Ray's own messages; of other errors only the class, since their text may quote a ticket."""
            for rank, error in worker_exceptions.items():
                text = next(iter(str(error).splitlines()), "") if isinstance(error, RayError) else ""
                why = type(error).__name__ + (f": {text}" if text else "")
                box.post.remote({"event": "lost", "rank": rank, "why": why})

    return WorkerLosses()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), run=run_on_ray))
