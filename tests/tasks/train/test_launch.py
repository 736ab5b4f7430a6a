"""Training as a step: results, errors, deadlines, kills and resumption, each with a real process on the tiny model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import DatasetRef, ModelRef, TrainedRef
from schemas.errors import ConfigError, TrainingError
from schemas.training import AdapterSpec, TrainSpec
from tasks.failpoint import VARIABLE
from tasks.files import seal, sha256_file, write_json
from tasks.train.job import CHECKPOINTS, PROGRESS, ProgressLog, TrainJob
from tasks.train.launch import train_model, worker_environment


def _train(dataset: DatasetRef, model: ModelRef, spec: TrainSpec, folder: Path, **more: object) -> TrainedRef:
    out = folder / "out"
    scratch = folder / "scratch"
    out.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(exist_ok=True)
    return train_model(dataset=dataset, model=model, spec=spec, out=out, scratch=scratch, **more)  # type: ignore[arg-type]


def _events(folder: Path) -> list[dict[str, object]]:
    return ProgressLog(folder / "scratch" / PROGRESS).read(0)[0]


METHODS = {
    "lora": {"method": "lora", "adapter": AdapterSpec(rank=4, alpha=8, dropout=0.2)},
    "qlora": {"method": "qlora"},
    "full": {"method": "full", "learning_rate": 1e-3},
}


def test_training_lowers_the_loss_and_reports_each_step(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: type
) -> None:
    heard: list[tuple[int, int | None, str, dict[str, float]]] = []
    trained = _train(
        dataset,
        tiny_model,
        make_spec(epochs=6, learning_rate=1e-2),
        tmp_path,
        progress=lambda done, total, unit, **figures: heard.append((done, total, unit, figures)),
    )
    assert [entry[0] for entry in heard] == list(range(1, 37))
    assert {entry[1:3] for entry in heard} == {(36, "steps")}
    assert heard[-1][3]["tokens_per_s"] > 0
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
    assert _events(tmp_path)[-1]["peak_rss_bytes"] > 50_000_000  # type: ignore[operator]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", ["train.checkpoint.renamed:2", "train.checkpoint.written:2"])
def test_a_killed_training_ends_in_the_bytes_of_an_uninterrupted_one(
    tmp_path: Path,
    dataset: DatasetRef,
    tiny_model: ModelRef,
    make_spec: type,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    place: str,
) -> None:
    spec = make_spec(**METHODS[method])
    _train(dataset, tiny_model, spec, tmp_path / "whole")
    monkeypatch.setenv(VARIABLE, place)
    with pytest.raises(TrainingError, match="killed"):
        _train(dataset, tiny_model, spec, tmp_path / "killed")
    monkeypatch.delenv(VARIABLE)
    _train(dataset, tiny_model, spec, tmp_path / "killed")
    started = [event["step"] for event in _events(tmp_path / "killed") if event["event"] == "started"]
    assert started == ([0, 6] if "renamed" in place else [0, 3])
    warned = [str(event["message"]) for event in _events(tmp_path / "killed") if event["event"] == "warning"]
    assert ("never completed" in "".join(warned)) == ("written" in place)
    assert seal(tmp_path / "killed" / "out") == seal(tmp_path / "whole" / "out")


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec()
    _train(dataset, tiny_model, spec, tmp_path / "whole")
    monkeypatch.setenv(VARIABLE, "train.checkpoint.renamed:3")
    with pytest.raises(TrainingError):
        _train(dataset, tiny_model, spec, tmp_path / "killed")
    monkeypatch.delenv(VARIABLE)
    newest = max((tmp_path / "killed" / "scratch" / CHECKPOINTS).glob("step-*"))
    damaged = newest / "optimizer.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-5] ^= 1
    damaged.write_bytes(data)
    _train(dataset, tiny_model, spec, tmp_path / "killed")
    events = _events(tmp_path / "killed")
    assert any(newest.name in str(event.get("message")) for event in events)
    assert [event["step"] for event in events if event["event"] == "started"] == [0, 6]
    assert seal(tmp_path / "killed" / "out") == seal(tmp_path / "whole" / "out")


def test_a_finished_result_is_taken_without_training_again(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: type
) -> None:
    spec = make_spec(epochs=1)
    first = _train(dataset, tiny_model, spec, tmp_path)
    seen = len(_events(tmp_path))
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    assert _train(dataset, tiny_model, spec, tmp_path) == first
    assert len(_events(tmp_path)) == seen


def test_divergence_ends_the_training_with_step_examples_and_advice(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: type
) -> None:
    spec = make_spec(learning_rate=1.0, adapter=AdapterSpec(rank=4, alpha=1e30), epochs=4, warmup_ratio=0.0)
    with pytest.raises(TrainingError, match=r"diverged at step \d+: loss .* 4 examples: train-\d{4}") as caught:
        _train(dataset, tiny_model, spec, tmp_path)
    assert caught.value.code == "TG0401"
    assert "learning_rate" in str(caught.value.hint)
    assert not list((tmp_path / "out").iterdir())


def test_an_error_of_the_settings_comes_back_as_its_own_class(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: type
) -> None:
    spec = make_spec(adapter=AdapterSpec(target_modules=("q_proj", "v_porj")))
    with pytest.raises(ConfigError, match="'v_porj'") as caught:
        _train(dataset, tiny_model, spec, tmp_path)
    assert caught.value.hint == "did you mean 'v_proj'?"


def test_a_crash_shows_the_last_lines_of_the_process(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: type
) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / CHECKPOINTS).write_text("not a folder")
    with pytest.raises(TrainingError, match="FileExistsError|NotADirectoryError") as caught:
        _train(dataset, tiny_model, make_spec(), tmp_path)
    assert caught.value.code == "TG0407"


def test_a_training_over_its_time_is_stopped_and_goes_on_later(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: type
) -> None:
    slow = make_spec(epochs=4000, timeout_minutes=0.25)
    with pytest.raises(TrainingError, match=r"0\.25 minutes") as caught:
        _train(dataset, tiny_model, slow, tmp_path)
    assert caught.value.code == "TG0406"
    done = max(int(str(event["step"])) for event in _events(tmp_path) if event["event"] == "step")
    newest = max((tmp_path / "scratch" / CHECKPOINTS).glob("step-*"))
    assert newest.name == f"step-{done:08d}"


def test_an_interrupted_run_leaves_a_checkpoint_and_no_process(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: type
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


def test_the_training_process_dies_with_its_parent(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: type, project: Path
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
    while Path(f"/proc/{child}/stat").exists() and Path(f"/proc/{child}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_working_directory_cannot_stand_in_for_our_modules(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere" / "tasks").mkdir(parents=True)
    (tmp_path / "elsewhere" / "tasks" / "__init__.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert _train(dataset, tiny_model, make_spec(max_steps=1), tmp_path).n_steps == 1


@pytest.mark.model
def test_the_real_model_is_resumed_bit_for_bit(
    tmp_path: Path, smollm2: ModelRef, make_dataset: type, make_spec: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_dataset(n_train=8, n_validation=2, vocab=40000)
    spec = make_spec(batch_size=2, epochs=1, save_every=2, adapter=AdapterSpec(rank=8), dtype="auto")
    _train(data, smollm2, spec, tmp_path / "whole")
    monkeypatch.setenv(VARIABLE, "train.checkpoint.renamed")
    with pytest.raises(TrainingError):
        _train(data, smollm2, spec, tmp_path / "killed")
    monkeypatch.delenv(VARIABLE)
    _train(data, smollm2, spec, tmp_path / "killed")
    files = ("adapter_model.safetensors", "curves.parquet", "training.json")
    for name in files:
        assert sha256_file(tmp_path / "whole" / "out" / name) == sha256_file(tmp_path / "killed" / "out" / name)
    assert orjson.loads((tmp_path / "whole" / "out" / "training.json").read_bytes())["n_steps"] == 4
