"""Runs the training processes of tasks/train/place.py as forks of one that has torch loaded, to save imports."""

import multiprocessing

from tasks.storage.failpoint import VARIABLE
from tasks.storage.files import write_json
from tasks.train.job import TrainJob

FORKED = """
import os, sys, traceback
from pathlib import Path

class Forked:
    # The process interface that tasks.train.place uses, with torch already loaded.
    def __init__(self, command, *, env, stdin, pass_fds):
        self.returncode = None
        self.pid = os.fork()
        if not self.pid:
            os.environ.update(env)
            try:
                from tasks.train.worker import main
                os._exit(main(Path(command[4]), int(command[5])))
            except BaseException:
                traceback.print_exc()
                os._exit(1)

    def poll(self, flags=os.WNOHANG):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, flags)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self):
        return self.poll(0)

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(9)

import types
import tasks.train.place
tasks.train.place.subprocess = types.SimpleNamespace(Popen=Forked, DEVNULL=None)
"""


def server_with_torch() -> multiprocessing.context.ForkServerContext:
    """Starts processes that have already loaded what training needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tasks.train.worker", "tasks.train.engine", "tasks.train.distributed", "peft", "datasets", "bitsandbytes"]
    )
    return context


def train_forked(
    processes: multiprocessing.context.ForkServerContext, job: TrainJob, failpoint: str = ""
) -> int | None:
    """Run the job in its own process, which starts the ranks' processes; return its exit code."""
    scratch = job.scratch
    scratch.mkdir(exist_ok=True, parents=True)
    write_json(scratch / "job.json", job.model_dump(mode="json"))
    code = (
        f"{FORKED}\nos.environ.update({{{VARIABLE!r}: {failpoint!r}, 'OMP_NUM_THREADS': '1'}})\n"
        f"log = os.open({str(scratch / 'worker.log')!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "os.dup2(log, 1); os.dup2(log, 2)\n"
        "from tasks.train.worker import main\n"
        f"sys.exit(main(Path({str(scratch / 'job.json')!r})))"
    )
    process = processes.Process(target=exec, args=(code, {}))
    process.start()
    process.join()
    return process.exitcode
