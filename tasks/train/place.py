"""Where a training runs: the process to start for it, its environment, and its ranks on this machine.

tasks/train/launch.py starts and watches that process, wherever the work is done; it reports back in the files of
tasks/train/job.py. This module trains on this machine; tasks/cluster/train_driver.py trains on a Ray cluster.

With several processes (`train.processes`), the worker does not train: it starts one worker per rank and waits. All
start together, and all end when one of them fails. They meet on a port of 127.0.0.1 that is open before they start, so
no other program can take it and nothing outside this machine can reach it. tasks/train/distributed.py has their work.
Nothing here imports torch.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from schemas.secrets import without_secrets
from tasks.train.job import INTERRUPTED, TrainJob
from tasks.train.memory import check_memory

_PROJECT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"
RANK, SIZE, PORT, LISTENER = (f"TUNEGATE_TRAIN_{name}" for name in ("RANK", "SIZE", "PORT", "LISTENER"))
"""Environment variables that give a worker its rank and its group."""
FAILURE_GRACE_S = 3.0
"""Seconds for the other ranks to end by themselves after the first has failed: the cause may lie in one of them."""
_POLL_S = 0.05


class TrainingPlace(Protocol):
    """Defines how the process of a training is started."""

    def command(self, job_file: Path) -> list[str]:
        """The program and its arguments: the job file, and the parent process with which it ends."""

    def environment(self, environ: Mapping[str, str], *, threads: int) -> dict[str, str]:
        """The whole environment of that process."""

    def check(self, job: TrainJob) -> None:
        """Refuse a job that cannot run there, before anything starts.

        Raises:
            TrainingError: TG0405, it does not fit into memory.
        """


class ThisMachine:
    """One process on this machine, or as many as `train.processes` says (`run_ranks`)."""

    def command(self, job_file: Path) -> list[str]:
        return python_module("tasks.train.worker", str(job_file), str(os.getpid()))

    def environment(self, environ: Mapping[str, str], *, threads: int) -> dict[str, str]:
        return worker_environment(environ, threads=threads)

    def check(self, job: TrainJob) -> None:
        check_memory(job.workload(), job.spec)


def python_module(name: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules; `-P` keeps the working directory from shadowing it."""
    return [sys.executable, "-P", "-m", name, *arguments]


def worker_environment(environ: Mapping[str, str], *, threads: int) -> dict[str, str]:
    """The environment of a training process: threads, no network, no telemetry, no secrets, our modules first."""
    return {**without_secrets(environ), **our_modules(environ), **library_settings(threads=threads)}


def our_modules(environ: Mapping[str, str]) -> dict[str, str]:
    """An absolute PYTHONPATH, so that no folder of the working directory can shadow ours."""
    paths = [str(_PROJECT), *filter(None, [environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def library_settings(*, threads: int) -> dict[str, str]:
    """Environment variables of libraries, the same in every process that computes, as equal bytes require."""
    return {
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # Waiting threads must sleep: spinning ones starve each other as soon as something else runs.
        "OMP_WAIT_POLICY": "PASSIVE",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "USE_HUB_KERNELS": "NO",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def is_rank() -> bool:
    """Whether this process is one of several that train together."""
    return RANK in os.environ


def run_ranks(job_file: Path, job: TrainJob, *, lock: int) -> int:
    """Start one process per rank and wait for all of them; returns the exit code of the training.

    When one fails or is killed, the others are killed too. If one dies by a signal, this process dies by the same
    signal, so that its parent sees what a single process would have shown.

    Args:
        job_file: The job; each process reads it.
        job: The parsed job.
        lock: Descriptor of the folder's lock. The processes inherit it, so the folder stays locked until the last of
            them ends.
    """
    with socket.create_server((LOOPBACK, 0), backlog=job.spec.processes) as listener:
        ranks = [_start(job_file, job, rank, listener, lock) for rank in range(job.spec.processes)]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: _send(ranks, received))
    codes = _wait(ranks)
    combined = _combine(codes)
    if any(code not in (0, INTERRUPTED) for code in codes):
        print(f"exit codes of the processes: {', '.join(map(str, codes))}", file=sys.stderr, flush=True)  # noqa: T201
    if combined < 0:
        os.kill(os.getpid(), -combined)
    return combined


def _start(job_file: Path, job: TrainJob, rank: int, listener: socket.socket, lock: int) -> subprocess.Popen[bytes]:
    inherited = listener.fileno() if rank == 0 else None
    place = {RANK: str(rank), SIZE: str(job.spec.processes), PORT: str(listener.getsockname()[1])}
    if inherited is not None:
        place[LISTENER] = str(inherited)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tasks.train.worker", str(job_file), str(os.getpid())],
        env=worker_environment(os.environ, threads=job.threads) | _interfaces() | _card(rank) | place,
        stdin=subprocess.DEVNULL,
        pass_fds=(lock,) if inherited is None else (lock, inherited),
    )


def _interfaces() -> dict[str, str]:
    """Keep both transports on the loopback interface."""
    name = "lo0" if sys.platform == "darwin" else "lo"
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}


def _card(rank: int) -> dict[str, str]:
    """Show each process one card, which is its first; without cards the variable has no effect."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = visible.split(",") if visible else None
    if cards is None:
        return {"CUDA_VISIBLE_DEVICES": str(rank)}
    return {"CUDA_VISIBLE_DEVICES": cards[rank] if rank < len(cards) else ""}


def _wait(ranks: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes in rank order; a process that was killed from here counts as 1."""
    deadline: float | None = None
    while any(rank.poll() is None for rank in ranks):
        if deadline is None and any(rank.poll() not in (None, 0, INTERRUPTED) for rank in ranks):
            deadline = time.monotonic() + FAILURE_GRACE_S
        if deadline is not None and time.monotonic() > deadline:
            late = [rank for rank in ranks if rank.poll() is None]
            for rank in late:
                rank.kill()
            return [1 if rank in late else rank.poll() or 0 for rank in ranks if rank.wait() is not None]
        time.sleep(_POLL_S)
    return [rank.returncode for rank in ranks]


def _combine(codes: Sequence[int]) -> int:
    """One exit code for all.

    >>> _combine([0, 0]), _combine([75, 75]), _combine([1, -9]), _combine([1, 3])
    (0, 75, -9, 1)
    """
    if killed := [code for code in codes if code < 0]:
        return killed[0]
    if failed := [code for code in codes if code not in (0, INTERRUPTED)]:
        return min(failed)
    return max(codes)


def _send(ranks: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(number)
