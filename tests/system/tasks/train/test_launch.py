"""Training as a step: results, errors, deadlines and interruptions, with real processes on the tiny model."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.artifacts import DatasetRef, ModelRef
from schemas.errors import ConfigError, ProcessLostError, TrainingError
from schemas.training import AdapterSpec, BudgetSpec
from tasks.compute.children import Children
from tasks.storage.failpoint import VARIABLE
from tasks.storage.files import write_json
from tasks.storage.sealed_folder import MANIFEST
from tasks.train.job import CHECKPOINTS, FINAL, PROGRESS, ProgressLog, TrainJob
from tasks.train.limits import TrainingLimits, Use
from tasks.train.place import ThisMachine, worker_environment
from tests.support.processes import is_running, processes_of
from tests.tasks.train.conftest import Run
from tests.tasks.train.test_launch import MakeSpec, train_with


@pytest.mark.parametrize("n", [1, 2])
def test_the_training_processes_die_with_their_parent(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, project: Path, n: int
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    spec = make_spec(epochs=4000, save_every=10**6, processes=n)
    job = TrainJob(dataset=dataset, model=tiny_model, spec=spec, scratch=scratch, threads=1)
    write_json(scratch / "job.json", job.model_dump(mode="json"))
    code = (
        "import subprocess, sys, os\n"
        "child = subprocess.Popen([sys.executable, '-P', '-m', 'tasks.train.worker', sys.argv[1], str(os.getpid())],\n"
        "                         start_new_session=True)\n"
        "child.wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(scratch / "job.json")], env=worker_environment(os.environ, threads=1)
    )
    deadline = time.monotonic() + 900
    while not any(event["event"] == "step" for event in ProgressLog(scratch / PROGRESS).read(0)[0]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = processes_of(f"tasks.train.worker {scratch}")
    assert len(workers) == (1 if n == 1 else 3)  # with several processes, one leads
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _events(folder: Path) -> list[dict[str, Any]]:
    return ProgressLog(folder / "scratch" / PROGRESS).read(0)[0]


def _scratch(folder: Path) -> Path:
    folder.mkdir()
    return folder / "scratch"


def _manifest(folder: Path) -> bytes:
    """The manifest with the hashes of all result files."""
    return (folder / "scratch" / FINAL / MANIFEST).read_bytes()


def test_training_lowers_the_loss_and_reports_each_step_wherever_it_is_started(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere" / "tasks").mkdir(parents=True)
    (tmp_path / "elsewhere" / "tasks" / "__init__.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path / "elsewhere")
    reports: list[tuple[int, int | None, str, dict[str, float]]] = []
    spec = make_spec(epochs=6, learning_rate=1e-2, allow_unusual_learning_rate=True)
    trained = train_with(
        dataset,
        tiny_model,
        spec,
        tmp_path,
        progress=lambda done, total, unit, **figures: reports.append((done, total, unit, figures)),
    )
    assert [entry[0] for entry in reports] == [*range(1, 37), 36]
    assert {entry[1:3] for entry in reports} == {(36, "steps")}
    assert reports[-2][3]["tokens_per_s"] > 0
    # The last entry is the memory, most of which is the interpreter with its libraries.
    assert reports[-1][3].keys() == {"predicted_memory_bytes", "peak_memory_bytes"}
    assert reports[-1][3]["predicted_memory_bytes"] == pytest.approx(reports[-1][3]["peak_memory_bytes"], rel=0.15)
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

    # A run killed after training finds the finished result and trains nothing.
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    assert train_with(dataset, tiny_model, spec, tmp_path) == trained
    assert _events(tmp_path) == events


def test_an_error_in_the_settings_keeps_its_class(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    spec = make_spec(adapter=AdapterSpec(target_modules=("q_proj", "v_porj")))
    with pytest.raises(ConfigError, match="'v_porj'") as caught:
        train_with(dataset, tiny_model, spec, tmp_path)
    assert caught.value.hint == "did you mean `v_proj`?"


def test_a_crash_shows_the_last_lines_of_the_process(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", str(tmp_path / "nowhere"))  # an interpreter without its library exits at once
    with pytest.raises(TrainingError, match=r"(?s)TG0407.*exit code.*encodings"):
        train_with(dataset, tiny_model, make_spec(), tmp_path)


def test_a_killed_and_then_interrupted_training_ends_with_the_bytes_of_an_uninterrupted_one(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    children = Children()
    spec = make_spec(epochs=20, save_every=6, validate_every=10**6, adapter=AdapterSpec(rank=4, dropout=0.2))

    class BackgroundTraining:
        """A training in a thread, as in the driver of a run."""

        def __init__(self) -> None:
            self.error: Exception | None = None
            self.reports = 0
            self._thread = threading.Thread(target=self._train)
            self._thread.start()

        def _train(self) -> None:
            try:
                train_with(dataset, tiny_model, spec, tmp_path, children=children, progress=self._on_progress)
            except Exception as error:
                self.error = error

        def _on_progress(self, done: int, *_: object, **__: float) -> None:
            self.reports = done

        def wait(self, step: int = 10**9) -> Exception | None:
            while self._thread.is_alive() and self.reports < step:
                time.sleep(0.01)
            return self.error

    first = BackgroundTraining()
    assert first.wait(8) is None
    (worker,) = processes_of(f"tasks.train.worker {tmp_path}")
    os.kill(worker, signal.SIGKILL)
    error = first.wait()
    assert isinstance(error, ProcessLostError)
    assert (error.code, error.transient) == ("TG0405", True)

    second = BackgroundTraining()
    assert second.wait(first.reports + 10) is None
    started = time.monotonic()
    children.end()
    error = second.wait()
    assert time.monotonic() - started < 60
    assert isinstance(error, TrainingError)
    assert (error.code, error.transient) == ("TG0408", False)
    assert "a checkpoint is saved" in error.message
    assert not processes_of(f"tasks.train.worker {tmp_path}")
    stopped_at = [event["step"] for event in _events(tmp_path) if event["event"] == "step"][-1]
    assert (tmp_path / "scratch" / CHECKPOINTS / f"step-{stopped_at:08d}").is_dir()

    children.reopen()
    assert BackgroundTraining().wait() is None
    starts = [event["step"] for event in _events(tmp_path) if event["event"] == "started"]
    assert starts[0] == 0 < starts[1] < starts[2] == stopped_at < 120
    assert (
        run(TrainJob(dataset=dataset, model=tiny_model, spec=spec, scratch=_scratch(tmp_path / "whole"), threads=1))
        == 0
    )
    assert _manifest(tmp_path) == _manifest(tmp_path / "whole")


def test_a_training_without_enough_memory_starts_over_with_smaller_batches(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    class SmallMachine(ThisMachine):
        """Fails at the fifth batch of four examples with torch's own out-of-memory error."""

        def command(self, job_file: Path) -> list[str]:
            _, _, _, _, *arguments = super().command(job_file)
            code = (
                "import sys, torch; from pathlib import Path; from tasks.train import batches, worker\n"
                "of_few, sizes = batches.Examples.batch, []\n"
                "def batch(self, indices):\n"
                "    sizes.append(len(indices))\n"
                "    return torch.empty(2**60) if sizes.count(4) == 5 else of_few(self, indices)\n"
                "batches.Examples.batch = batch\n"
                "sys.exit(worker.main(Path(sys.argv[1]), int(sys.argv[2])))"
            )
            return [sys.executable, "-P", "-c", code, *arguments]

    spec = make_spec(save_every=2)
    train_with(dataset, tiny_model, spec, tmp_path, place=SmallMachine())
    kinds = [event["event"] for event in _events(tmp_path) if event["event"] in ("started", "halved", "ended")]
    assert kinds == ["started", "halved", "started", "ended"]
    assert [event["step"] for event in _events(tmp_path) if event["event"] == "started"] == [0, 0]
    # The result equals that of a training with these settings.
    same = make_spec(save_every=2, batch_size=2, gradient_accumulation_steps=2)
    assert run(TrainJob(dataset=dataset, model=tiny_model, spec=same, scratch=_scratch(tmp_path / "2"), threads=1)) == 0
    assert _manifest(tmp_path) == _manifest(tmp_path / "2")


def test_a_killed_process_is_reported_with_advice(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "train.checkpoint.written")
    with pytest.raises(TrainingError, match=r"TG0405.*killed \(out of memory\?\)") as caught:
        train_with(dataset, tiny_model, make_spec(), tmp_path)
    assert "halve train.batch_size (4)" in str(caught.value.hint)


def test_a_training_over_its_time_limit_is_stopped(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    with pytest.raises(TrainingError, match=r"TG0406.*within 0\.02 minutes"):
        train_with(dataset, tiny_model, make_spec(timeout_minutes=0.02), tmp_path)


def test_a_training_stopped_by_its_budget_continues_with_a_larger_one_to_the_same_bytes(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    spec = make_spec(epochs=10, save_every=7)
    whole = TrainJob(dataset=dataset, model=tiny_model, spec=spec, scratch=_scratch(tmp_path / "whole"), threads=1)
    assert run(whole) == 0
    limits = TrainingLimits(budget=BudgetSpec(minutes=30))

    def spend(done: int, *_: object, **__: float) -> None:
        if done >= 5:  # another training of the run takes the rest
            limits.used.report("another", Use(1800, 0))

    with pytest.raises(
        TrainingError, match=r"TG0406.*stopped by train\.budget: \d+\.\d of 30 minutes are used, with \d"
    ):
        train_with(dataset, tiny_model, spec, tmp_path / "stopped", progress=spend, limits=limits)
    events = _events(tmp_path / "stopped")
    assert (events[-1]["event"], events[-1]["finished"]) == ("ended", False)
    assert list((tmp_path / "stopped" / "scratch" / CHECKPOINTS).glob("step-*"))
    train_with(dataset, tiny_model, spec, tmp_path / "stopped", limits=TrainingLimits(budget=BudgetSpec(minutes=6000)))
    starts = [event["step"] for event in _events(tmp_path / "stopped") if event["event"] == "started"]
    assert starts[0] == 0
    assert starts[1] >= 5
    assert _manifest(tmp_path / "stopped") == _manifest(tmp_path / "whole")


def test_an_interrupted_run_leaves_a_checkpoint_and_no_process(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    class Interrupted(Exception):  # noqa: N818
        pass

    def interrupt(done: int, total: int | None, unit: str, **figures: float) -> None:
        if done >= 5:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_with(dataset, tiny_model, make_spec(epochs=4000, save_every=10**6), tmp_path, progress=interrupt)
    ended = _events(tmp_path)[-1]
    assert ended["event"] == "ended"
    assert ended["finished"] is False
    assert list((tmp_path / "scratch" / CHECKPOINTS).glob("step-*"))
