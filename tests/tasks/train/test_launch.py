"""Training as a step: results, errors, deadlines and interruptions, each with a real process on the tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from schemas.artifacts import DatasetRef, ModelRef, TrainedRef
from schemas.errors import ConfigError, TrainingError
from schemas.training import AdapterSpec, TrainSpec
from tasks.failpoint import VARIABLE
from tasks.train.job import CHECKPOINTS, INTERRUPTED, PROGRESS, ProgressLog
from tasks.train.launch import train_model
from tasks.train.place import ThisMachine

MakeSpec = Callable[..., TrainSpec]


def _train(dataset: DatasetRef, model: ModelRef, spec: TrainSpec, folder: Path, **more: object) -> TrainedRef:
    out = folder / "out"
    scratch = folder / "scratch"
    out.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(exist_ok=True)
    return train_model(dataset=dataset, model=model, spec=spec, out=out, scratch=scratch, **more)  # type: ignore[arg-type]


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
    trained = _train(
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
    assert _train(dataset, tiny_model, spec, tmp_path) == trained
    assert _events(tmp_path) == events


def test_a_training_that_cannot_fit_is_refused_before_a_process_starts(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    spec = make_spec(batch_size=2**24, gradient_accumulation_steps=2)
    with pytest.raises(TrainingError, match=r"predicted to need \d{3,}.* GiB, this machine has") as caught:
        _train(dataset, tiny_model, spec, tmp_path)
    assert caught.value.code == "TG0415"
    assert "this fits: train.batch_size: " in str(caught.value.hint)
    assert not (tmp_path / "scratch" / "worker.log").exists()


def test_an_error_of_the_settings_comes_back_as_its_own_class(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    spec = make_spec(adapter=AdapterSpec(target_modules=("q_proj", "v_porj")))
    with pytest.raises(ConfigError, match="'v_porj'") as caught:
        _train(dataset, tiny_model, spec, tmp_path)
    assert caught.value.hint == "did you mean `v_proj`?"


def test_a_crash_shows_the_last_lines_of_the_process(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    (tmp_path / "scratch" / "worker.lock").mkdir(parents=True)
    with pytest.raises(TrainingError, match=r"(?s)exit code.*IsADirectoryError") as caught:
        _train(dataset, tiny_model, make_spec(), tmp_path)
    assert caught.value.code == "TG0407"


def test_a_process_that_was_killed_is_told_as_such_with_advice(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "train.checkpoint.written")
    with pytest.raises(TrainingError, match=r"killed \(out of memory\?\)") as caught:
        _train(dataset, tiny_model, make_spec(), tmp_path)
    assert caught.value.code == "TG0405"
    assert "halve train.batch_size (4)" in str(caught.value.hint)


def test_a_training_that_was_asked_to_stop_says_how_to_continue(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    class Stopped(ThisMachine):
        def command(self, job_file: Path) -> list[str]:
            return ["sh", "-c", f"exit {INTERRUPTED}"]

    with pytest.raises(TrainingError, match="TG0408"):
        _train(dataset, tiny_model, make_spec(), tmp_path, place=Stopped())


def test_a_training_over_its_time_is_stopped(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    with pytest.raises(TrainingError, match=r"after 0\.02 minutes") as caught:
        _train(dataset, tiny_model, make_spec(timeout_minutes=0.02), tmp_path)
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
        _train(dataset, tiny_model, make_spec(epochs=4000, save_every=10**6), tmp_path, progress=tired)
    ended = _events(tmp_path)[-1]
    assert ended["event"] == "ended"
    assert ended["finished"] is False
    assert list((tmp_path / "scratch" / CHECKPOINTS).glob("step-*"))
