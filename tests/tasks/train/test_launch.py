"""Training as a step: results, errors, deadlines and interruptions, with real processes on the tiny model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas.artifacts import DatasetRef, ModelRef, TrainedRef
from schemas.errors import OutOfMemoryError, TrainingError
from schemas.training import BudgetSpec, TrainSpec
from tasks.train.job import CHECKPOINTS, ERROR, INTERRUPTED, PROGRESS, USED, ProgressLog, TrainJob
from tasks.train.launch import train_model
from tasks.train.limits import TrainingLimits, Use
from tasks.train.place import ThisMachine

MakeSpec = Callable[..., TrainSpec]


def train_with(dataset: DatasetRef, model: ModelRef, spec: TrainSpec, folder: Path, **more: object) -> TrainedRef:
    out = folder / "out"
    scratch = folder / "scratch"
    out.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(exist_ok=True)
    return train_model(dataset=dataset, model=model, spec=spec, out=out, scratch=scratch, **more)  # type: ignore[arg-type]


def test_a_training_that_cannot_fit_is_refused_before_a_process_starts(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    spec = make_spec(batch_size=2**24, gradient_accumulation_steps=2)
    with pytest.raises(TrainingError, match=r"TG0405.*predicted to need \d{3,}.* GiB, this machine has") as caught:
        train_with(dataset, tiny_model, spec, tmp_path)
    assert "this fits: train.batch_size: " in str(caught.value.hint)
    assert not (tmp_path / "scratch" / "worker.log").exists()


class Scripted(ThisMachine):
    """Runs a shell script per attempt instead of a training, and records the settings of the attempts."""

    def __init__(self, *scripts: str) -> None:
        self.scripts, self.tried = list(scripts), list[tuple[int, int]]()

    def command(self, job_file: Path) -> list[str]:
        spec = TrainJob.model_validate(orjson.loads(job_file.read_bytes())).spec
        self.tried.append((spec.batch_size, spec.gradient_accumulation_steps))
        return ["sh", "-c", f"cd {job_file.parent}; {self.scripts.pop(0)}"]


NO_MEMORY = OutOfMemoryError("the training ran out of memory", code="TG0405", hint="less").to_json()
OUT_OF_MEMORY = f"echo '{orjson.dumps({'type': 'OutOfMemoryError', **NO_MEMORY}).decode()}' > {ERROR}; exit 1"


def attempts(folder: Path, *scripts: str, **settings: Any) -> tuple[TrainingError, list[tuple[int, int]]]:
    place = Scripted(*scripts)
    with pytest.raises(TrainingError) as caught:
        train_with(place=place, folder=folder, **settings)
    assert place.scripts == []
    return caught.value, place.tried


@pytest.mark.parametrize(
    ("ending", "code", "transient"),
    [
        ("kill -KILL $$", "TG0405", True),
        ("kill -SEGV $$", "TG0407", True),
        ("kill -TERM $$", "TG0408", False),
        (f"exit {INTERRUPTED}", "TG0408", False),
        ("exit 1", "TG0407", False),
        ("exit 3", "TG0407", False),
        # A reported error counts more than the exit that follows it.
        (
            OUT_OF_MEMORY.replace("OutOfMemoryError", "TrainingError").replace("exit 1", "kill -SEGV $$"),
            "TG0405",
            False,
        ),
    ],
)
def test_only_a_death_by_a_foreign_signal_is_retried(
    tmp_path: Path,
    dataset: DatasetRef,
    tiny_model: ModelRef,
    make_spec: MakeSpec,
    ending: str,
    code: str,
    transient: bool,
) -> None:
    error, tried = attempts(tmp_path, ending, dataset=dataset, model=tiny_model, spec=make_spec())
    assert (error.code, error.transient, error.exit_code) == (code, transient, 4)
    assert tried == [(4, 1)]
    assert (error.hint == "run again: it resumes from its last checkpoint") == (code == "TG0408")


def test_out_of_memory_leads_to_one_attempt_with_half_the_batch_and_then_an_error(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"dataset": dataset, "model": tiny_model, "spec": make_spec(batch_size=6, gradient_accumulation_steps=2)}
    checkpoint = tmp_path / "scratch" / CHECKPOINTS / "step-00000003"
    error, tried = attempts(tmp_path, f"mkdir -p {checkpoint}; {OUT_OF_MEMORY}", OUT_OF_MEMORY, **settings)
    assert tried == [(6, 2), (3, 4)]
    assert not checkpoint.exists()
    assert (error.code, error.transient, error.hint) == ("TG0405", False, "less")
    assert "both with train.batch_size 6 and with 3 (gradient_accumulation_steps 4)" in error.message
    assert "it starts over with train.batch_size: 3, train.gradient_accumulation_steps: 4" in caplog.text
    # The decision is made once and holds for later attempts.
    lost, tried = attempts(tmp_path, "kill -KILL $$", **settings)
    assert (lost.transient, tried) == (True, [(3, 4)])
    again, tried = attempts(tmp_path, OUT_OF_MEMORY, **settings)
    assert (again.message, tried) == (error.message, [(3, 4)])
    events = ProgressLog(tmp_path / "scratch" / PROGRESS).read(0)[0]
    assert [(event["event"], event["batch_size"]) for event in events] == [("halved", 3)]
    # Only for these settings.
    _, tried = attempts(tmp_path, "exit 3", **settings | {"spec": make_spec(batch_size=8)})
    assert tried == [(8, 1)]


def test_a_line_of_progress_damaged_on_disk_stops_no_later_attempt(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    settings = {"dataset": dataset, "model": tiny_model, "spec": make_spec(batch_size=6)}
    attempts(tmp_path, OUT_OF_MEMORY, OUT_OF_MEMORY, **settings)
    progress = tmp_path / "scratch" / PROGRESS
    (line,) = progress.read_bytes().splitlines()
    # Bits flipped: no JSON, no text, an entry without an event or a key, and no object at all.
    damaged = [line[1:], b"\xff" + line, line.replace(b"event", b"evenu"), line.replace(b'"key"', b'"kez"'), b"7"]
    for each in damaged:
        progress.write_bytes(each + b"\n")
        lost, tried = attempts(tmp_path, "kill -KILL $$", **settings)
        assert (lost.transient, tried) == (True, [(6, 1)]), each
    progress.write_bytes(b"\n".join([*damaged, line, b""]))
    assert attempts(tmp_path, "kill -KILL $$", **settings)[1] == [(3, 2)]


def test_a_batch_of_one_cannot_be_halved(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    error, tried = attempts(tmp_path, OUT_OF_MEMORY, dataset=dataset, model=tiny_model, spec=make_spec(batch_size=1))
    assert tried == [(1, 1)]
    assert (error.code, error.message) == ("TG0405", "the training ran out of memory")


def slow(steps: int) -> str:
    """A script of a training that reports a step every 0.1 s, and saves a checkpoint when it is stopped."""
    done = "mkdir -p checkpoints; touch checkpoints/saved; exit 75"
    line = '{"event":"step","step":%d,"n_steps":9,"loss":1.0,"learning_rate":0.1,"step_tokens":5,"seconds":0.1}\\n'
    step = f"n=$((n+1)); printf '{line}' $n >> progress.jsonl; sleep 0.1"
    return f"trap '{done}' TERM; n=0; while [ $n -lt {steps} ]; do {step}; done; exit 1"


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        ({"minutes": 0.005}, r"\d\.\d of 0\.005 minutes are used, with \d of 9 steps done"),
        ({"usd": 0.00007, "machine": "l4"}, r"0\.\d+ of 7e-05 USD are used"),
    ],
)
def test_a_training_stops_at_its_budget_with_a_checkpoint_and_the_time_of_all_attempts_counts(
    tmp_path: Path,
    dataset: DatasetRef,
    tiny_model: ModelRef,
    make_spec: MakeSpec,
    budget: dict[str, Any],
    sentence: str,
) -> None:
    limits = TrainingLimits(budget=BudgetSpec(**budget), usd_per_hour=0.8)
    place = Scripted(slow(90), slow(90))
    for attempt in range(2):
        with pytest.raises(TrainingError, match=sentence if attempt == 0 else "stopped by train.budget") as caught:
            train_with(dataset, tiny_model, make_spec(), tmp_path, place=place, limits=limits)
        assert (caught.value.code, "time so far counts" in (caught.value.hint or "")) == ("TG0406", True)
    assert len(place.tried) == 1  # the second attempt has nothing left, so no process starts
    assert (tmp_path / "scratch" / "checkpoints" / "saved").exists()
    larger = TrainingLimits(budget=BudgetSpec(minutes=60, gpu_hours=0.001), usd_per_hour=0.8)
    with pytest.raises(TrainingError, match="TG0407"):  # the script ends with 1: it was started
        train_with(dataset, tiny_model, make_spec(), tmp_path, place=Scripted(slow(1)), limits=larger)
    assert orjson.loads((tmp_path / "scratch" / USED).read_bytes())["seconds"] > 0.3


def test_trainings_of_one_run_share_their_budget() -> None:
    limits = TrainingLimits(budget=BudgetSpec(gpu_hours=1.5))
    assert limits.exceeded(limits.used.report("a", Use(1800, 2))) is None
    assert limits.exceeded(limits.used.report("b", Use(900, 2))) == "1.5 of 1.5 GPU hours"
    assert limits.exceeded(limits.used.report("b", Use(600, 2))) is None
    assert TrainingLimits().exceeded((Use(1e9, 8),)) is None
