"""A Prefect work pool's worker as users start it, with its own home folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import processes_of
from tests.support.project import PROJECT


class PoolWorker:
    """The worker's process; its children are in its process group.

    Args:
        bare: Start it with the server's address and login alone, as a user who follows the docs.
    """

    def __init__(self, pool: str, folder: Path, environ: Mapping[str, str], *, bare: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "worker.log"
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
        if bare:
            reached = {name: environ[name] for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")}
            environ = {"HOME": str(folder), "PATH": os.environ["PATH"], **reached}
        else:
            environ = {**os.environ, **environ, "PYTHONPATH": str(PROJECT), "PREFECT_WORKER_QUERY_SECONDS": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """Send SIGKILL to the worker and its children, as when the machine is lost."""
        with_flow = [pid for pid in processes_of("python") if _session(pid) == self.process.pid]
        for pid in (self.process.pid, *with_flow):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


@contextmanager
def working(pool: str, folder: Path, environ: Mapping[str, str], *, bare: bool = False) -> Iterator[PoolWorker]:
    """Run a worker for the duration of the block."""
    worker = PoolWorker(pool, folder, environ, bare=bare)
    try:
        yield worker
    finally:
        worker.kill()


def flow_processes(run: str) -> list[int]:
    """Processes that Prefect started for this flow run."""
    return [pid for pid in processes_of("python") if _flow_run_of(pid) == run]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _flow_run_of(pid: int) -> str:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    except OSError:
        return ""
    return next((line.partition("=")[2] for line in environ if line.startswith("PREFECT__FLOW_RUN_ID=")), "")
