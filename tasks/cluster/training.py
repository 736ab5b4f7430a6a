"""A training on a Ray cluster, as tasks/train/launch.py starts one: the process is tasks/cluster/train_driver.py.

It imports no ray. Made by `flows/cluster.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.cluster.place import Place
from tasks.train.job import TrainJob
from tasks.train.place import library_settings, our_modules, python_module

RAY_TRAIN = {
    # A lost worker and the end of a training are noticed within this time.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Whoever waits for a place behind others' work need not ask for it anew each minute.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
}
"""Settings of Ray Train where the environment has no others."""


@dataclass(frozen=True)
class TrainingOnRay:
    """See `tasks.train.place.TrainingPlace`."""

    place: Place

    def command(self, job_file: Path) -> list[str]:
        return python_module("tasks.cluster.train_driver", str(job_file), str(os.getpid()))

    def environment(self, environ: Mapping[str, str], *, threads: int) -> dict[str, str]:
        """With secrets: the token of the cluster and what the storage asks for. The process loads no model, and Ray
        gives its workers the environment of their nodes."""
        own = {"RAY_ADDRESS": self.place.address, "TUNEGATE_SHARED": self.place.shared}
        return {**RAY_TRAIN, **environ, **our_modules(environ), **library_settings(threads=threads), **own}

    def check(self, job: TrainJob) -> None:
        """Nothing here: each node looks at its own memory before it loads anything."""
