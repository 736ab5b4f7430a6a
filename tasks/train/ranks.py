"""The processes of one training (`train.processes`): started together, and ended together when one of them ends badly.

The worker that was asked for several processes trains nothing itself: it starts one worker per rank and waits. They
meet on a port of 127.0.0.1 that is open before they start, so that nobody else can take it and nothing outside this
machine can reach it. It knows nothing of models and imports no torch. Called by tasks/train/worker.py; what the ranks
do together is in tasks/train/distributed.py.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tasks.train.job import INTERRUPTED, TrainJob
from tasks.train.place import worker_environment

LOOPBACK = "127.0.0.1"
RANK, SIZE, PORT, LISTENER = (f"TUNEGATE_TRAIN_{name}" for name in ("RANK", "SIZE", "PORT", "LISTENER"))
"""Variables that tell a worker its place."""
PATIENCE_S = 3.0
"""Seconds in which the others may end by themselves after the first has failed: its error may be another's."""
_POLL_S = 0.05


def is_rank() -> bool:
    """Is this process one of several that train together?"""
    return RANK in os.environ


def lead(job_file: Path, job: TrainJob, *, lock: int) -> int:
    """Start the processes and wait for all of them; returns the exit code of the training.

    When one fails or is killed, the others are killed too. Death by a signal is passed on: this process dies of the
    same, so that whoever waits for it sees what he would see of a single one.

    Args:
        job_file: The job; each process reads it.
        job: The same, read.
        lock: Descriptor of the folder's lock. The processes keep it open, so that the folder stays locked until the
            last of them is gone.
    """
    with socket.create_server((LOOPBACK, 0), backlog=job.spec.processes) as listener:
        ranks = [_start(job_file, job, rank, listener, lock) for rank in range(job.spec.processes)]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: _send(ranks, received))
    codes = _wait(ranks)
    told = _verdict(codes)
    if any(code not in (0, INTERRUPTED) for code in codes):
        print(f"exit codes of the processes: {', '.join(map(str, codes))}", file=sys.stderr, flush=True)  # noqa: T201
    if told < 0:
        os.kill(os.getpid(), -told)
    return told


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
    """Both transports stay on the loopback interface."""
    name = "lo0" if sys.platform == "darwin" else "lo"
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}


def _card(rank: int) -> dict[str, str]:
    """Each process sees one card and calls it its first; without cards the variable means nothing."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = visible.split(",") if visible else None
    if cards is None:
        return {"CUDA_VISIBLE_DEVICES": str(rank)}
    return {"CUDA_VISIBLE_DEVICES": cards[rank] if rank < len(cards) else ""}


def _wait(ranks: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes in the order of ranks; -SIGKILL that came from here is told as 1."""
    deadline: float | None = None
    while any(rank.poll() is None for rank in ranks):
        if deadline is None and any(rank.poll() not in (None, 0, INTERRUPTED) for rank in ranks):
            deadline = time.monotonic() + PATIENCE_S
        if deadline is not None and time.monotonic() > deadline:
            late = [rank for rank in ranks if rank.poll() is None]
            for rank in late:
                rank.kill()
            return [1 if rank in late else rank.poll() or 0 for rank in ranks if rank.wait() is not None]
        time.sleep(_POLL_S)
    return [rank.returncode for rank in ranks]


def _verdict(codes: Sequence[int]) -> int:
    """One exit code for all.

    >>> _verdict([0, 0]), _verdict([75, 75]), _verdict([1, -9]), _verdict([1, 3])
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
