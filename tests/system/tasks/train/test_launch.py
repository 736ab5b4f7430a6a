"""Training as a step: results, errors, deadlines and interruptions, each with a real process on the tiny model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from schemas.artifacts import DatasetRef, ModelRef, TrainedRef
from schemas.errors import ConfigError, TrainingError
from schemas.training import AdapterSpec, TrainSpec
from tasks.failpoint import VARIABLE
from tasks.files import write_json
from tasks.train.job import CHECKPOINTS, INTERRUPTED, PROGRESS, ProgressLog, TrainJob
from tasks.train.launch import train_model
from tasks.train.place import ThisMachine, worker_environment
from tests.support.processes import is_running
from tests.tasks.train.test_launch import MakeSpec, train_with


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


def _events(folder: Path) -> list[dict[str, object]]:
    return ProgressLog(folder / "scratch" / PROGRESS).read(0)[0]


def test_training_lowers_the_loss_and_reports_each_step_wherever_it_is_started(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere" / "tasks").mkdir(parents=True)
    (tmp_path / "elsewhere" / "tasks" / "__init__.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path / "elsewhere")
    heard: list[tuple[int, int | None, str, dict[str, float]]] = []
    spec = make_spec(epochs=6, learning_rate=1e-2, allow_unusual_learning_rate=True)
    trained = train_with(
        dataset,
        tiny_model,
        spec,
        tmp_path,
        progress=lambda done, total, unit, **figures: heard.append((done, total, unit, figures)),
    )
    assert [entry[0] for entry in heard] == [*range(1, 37), 36]
    assert {entry[1:3] for entry in heard} == {(36, "steps")}
    assert heard[-2][3]["tokens_per_s"] > 0
    # The last entry is of memory; most of a tiny model's training is the interpreter with its libraries.
    assert heard[-1][3].keys() == {"predicted_memory_bytes", "peak_memory_bytes"}
    assert heard[-1][3]["predicted_memory_bytes"] == pytest.approx(heard[-1][3]["peak_memory_bytes"], rel=0.15)
    curve = pq.read_table(tmp_path / "out" / "curves.parquet").to_pylist()
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.5
    assert trained.n_steps == 36
    assert trained.n_tokens == 6 * dataset.n_tokens
    assert trained.validation_loss == curve[-1]["validation_loss"]
    assert [row["step"] for row in curve if row["validation_loss"] is not None] == [6, 12, 18, 24, 30, 36]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "curves.parquet",
        "training.json",
    }
    events = _events(tmp_path)

    # A run that is killed after training finds the finished result and trains nothing.
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    assert train_with(dataset, tiny_model, spec, tmp_path) == trained
    assert _events(tmp_path) == events


def test_an_error_of_the_settings_comes_back_as_its_own_class(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    spec = make_spec(adapter=AdapterSpec(target_modules=("q_proj", "v_porj")))
    with pytest.raises(ConfigError, match="'v_porj'") as caught:
        train_with(dataset, tiny_model, spec, tmp_path)
    assert caught.value.hint == "did you mean `v_proj`?"


def test_a_crash_shows_the_last_lines_of_the_process(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", str(tmp_path / "nowhere"))  # an interpreter without its library ends at once
    with pytest.raises(TrainingError, match=r"(?s)exit code.*encodings") as caught:
        train_with(dataset, tiny_model, make_spec(), tmp_path)
    assert caught.value.code == "TG0407"


def test_a_process_that_was_killed_is_told_as_such_with_advice(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "train.checkpoint.written")
    with pytest.raises(TrainingError, match=r"killed \(out of memory\?\)") as caught:
        train_with(dataset, tiny_model, make_spec(), tmp_path)
    assert caught.value.code == "TG0405"
    assert "halve train.batch_size (4)" in str(caught.value.hint)


def test_a_training_over_its_time_is_stopped(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    with pytest.raises(TrainingError, match=r"after 0\.02 minutes") as caught:
        train_with(dataset, tiny_model, make_spec(timeout_minutes=0.02), tmp_path)
    assert caught.value.code == "TG0406"


def test_an_interrupted_run_leaves_a_checkpoint_and_no_process(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    class Enough(Exception):  # noqa: N818
        pass

    def tired(done: int, total: int | None, unit: str, **figures: float) -> None:
        if done >= 5:
            raise Enough

    with pytest.raises(Enough):
        train_with(dataset, tiny_model, make_spec(epochs=4000, save_every=10**6), tmp_path, progress=tired)
    ended = _events(tmp_path)[-1]
    assert ended["event"] == "ended"
    assert ended["finished"] is False
    assert list((tmp_path / "scratch" / CHECKPOINTS).glob("step-*"))
