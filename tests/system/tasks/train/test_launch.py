"""Training as a step: results, errors, deadlines and interruptions, each with a real process on the tiny model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from schemas.artifacts import DatasetRef, ModelRef
from schemas.training import TrainSpec
from tasks.files import write_json
from tasks.train.job import PROGRESS, ProgressLog, TrainJob
from tasks.train.place import worker_environment
from tests.support.processes import is_running

MakeSpec = Callable[..., TrainSpec]


def test_the_training_process_dies_with_its_parent(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, project: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    job = TrainJob(
        dataset=dataset, model=tiny_model, spec=make_spec(epochs=4000, save_every=10**6), scratch=scratch, threads=1
    )
    write_json(scratch / "job.json", job.model_dump(mode="json"))
    code = (
        "import subprocess, sys, os\n"
        "child = subprocess.Popen([sys.executable, '-P', '-m', 'tasks.train.worker', sys.argv[1], str(os.getpid())],\n"
        "                         start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(scratch / "job.json")],
        env=worker_environment(os.environ, threads=1),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    deadline = time.monotonic() + 120
    while not any(event["event"] == "step" for event in ProgressLog(scratch / PROGRESS).read(0)[0]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.1)
