"""Where a training runs: which process is started for it, in which environment, and what is asked before.

tasks/train/launch.py starts and watches that process, wherever the work is done: it answers by the files of
tasks/train/job.py. Here is a training on this machine; tasks/cluster/train_driver.py has one on a Ray cluster. It
imports no torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from schemas.secrets import without_secrets
from tasks.train.job import TrainJob
from tasks.train.memory_check import check_memory

_PROJECT = Path(__file__).resolve().parents[2]


class TrainingPlace(Protocol):
    """Says how the process of a training is started."""

    def command(self, job_file: Path) -> list[str]:
        """The program with its arguments: the job, and the process with which it shall die."""

    def environment(self, environ: Mapping[str, str], *, threads: int) -> dict[str, str]:
        """The whole environment of that process."""

    def check(self, job: TrainJob) -> None:
        """Refuse, before anything is started, what cannot work there.

        Raises:
            TrainingError: TG0415, it does not fit into memory.
        """


class ThisMachine:
    """One process here, or as many as `train.processes` says (tasks/train/ranks.py)."""

    def command(self, job_file: Path) -> list[str]:
        return python_module("tasks.train.worker", str(job_file), str(os.getpid()))

    def environment(self, environ: Mapping[str, str], *, threads: int) -> dict[str, str]:
        return worker_environment(environ, threads=threads)

    def check(self, job: TrainJob) -> None:
        check_memory(job.workload(), job.spec)


def python_module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours; `-P` keeps the working directory from standing in for it."""
    return [sys.executable, "-P", "-m", name, *arguments]


def worker_environment(environ: Mapping[str, str], *, threads: int) -> dict[str, str]:
    """The environment of a training process: threads, no network, no telemetry, no secrets, our modules first."""
    return {**without_secrets(environ), **our_modules(environ), **library_settings(threads=threads)}


def our_modules(environ: Mapping[str, str]) -> dict[str, str]:
    """An absolute PYTHONPATH: no folder of the working directory can stand in for ours."""
    paths = [str(_PROJECT), *filter(None, [environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def library_settings(*, threads: int) -> dict[str, str]:
    """What libraries read from the environment, the same in every process that computes: equal bytes need it."""
    return {
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # Waiting threads sleep: spinning ones starve each other as soon as something else runs.
        "OMP_WAIT_POLICY": "PASSIVE",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
