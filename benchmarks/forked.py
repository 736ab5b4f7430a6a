"""The training process as a fork of this process, which has torch loaded, instead of a new interpreter.

It does what `tasks/train/worker.py` does, in its own process group, and ends with its parent. No other step may run at
the same time (`ALONE`): a fork inherits locks that threads of the parent held, such as a module's import lock.
Campaigns that train hundreds of times set it as `tasks.train.launch._start`.
"""

import multiprocessing
import os
import subprocess
import sys
import traceback
from typing import IO

from tasks.train import worker
from tasks.train.job import JOB, TrainJob

ALONE = {"TUNEGATE_CPU": "1"}
"""Environment in which only one step runs at a time."""


class Forked:
    """The part of `subprocess.Popen` that `tasks/train/launch.py` uses."""

    def __init__(self, job: TrainJob, _place: object, _stderr: IO[bytes]) -> None:
        parent = os.getpid()

        def work() -> None:
            os.setsid()
            code = 1
            try:
                code = worker.main(job.scratch / JOB, parent)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)  # a normal exit would wait for threads that the fork does not have

        self._process = multiprocessing.get_context("fork").Process(target=work)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("training", timeout or 0)
        return self._process.exitcode
