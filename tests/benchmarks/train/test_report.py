"""The training benchmark compares like with like: equal batches, curves, gradients and answers, on the tiny model."""

import importlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.measure import ENGINES, pinned
from benchmarks.train.answers import agreement
from benchmarks.train.trainers import CONTESTANTS, Result, Run, plan, training_table
from benchmarks.train.workload import WORKLOADS, Prepared, prepare, spec_of
from schemas.artifacts import ModelRef
from schemas.training import AdapterSpec
from tasks.model.adapter import open_for_training
from tasks.model.base_model import load_base
from tasks.storage.files import write_json
from tasks.train.batches import Examples
from tasks.train.forward import losses_of
from tests.support.trained import shake

STEPS, BATCH = 3, 2
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the benchmarks read /proc: Linux only")


@pytest.fixture(scope="module")
def prepared(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("routing")
    sizes = {"n_steps": STEPS, "n_validation": 4, "batch_size": BATCH}
    return prepare(WORKLOADS["routing"], tiny_model, folder, dtype="float32", **sizes)


def test_every_contestant_has_a_script_and_a_list_of_pins() -> None:
    for one in CONTESTANTS:
        assert (ENGINES / one.script).is_file(), one.name
        assert one.environment == "project" or pinned(one.environment), one.name
    assert {one.role for one in plan(quick=True)} == {"ours", "trainer", "trl"}


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Run an engine's script in this process, which already has torch loaded."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    known = set(sys.modules)

    def run(script: str, *arguments: str | Path) -> None:
        monkeypatch.syspath_prepend(str(ENGINES))
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        monkeypatch.setenv("BENCH_STARTED", str(time.time()))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        importlib.import_module(script.removesuffix(".py")).main()

    yield run
    for name in {"train_shared", "train_own"} - known:
        sys.modules.pop(name, None)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_the_compared_gradients_are_equal(
    prepared: Prepared, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ENGINES))
    engine = importlib.import_module("train_own")
    model = shake(open_for_training(tiny_model, spec_of(dtype="float32")))
    batch = Examples(prepared.dataset.root / "train").batch([0, 1])
    wanted = engine.stock_gradients(model, batch)
    got = engine.own_gradients(model, losses_of(model, dtype=torch.float32, recompute=False), batch)
    assert wanted.keys() == got.keys()
    assert wanted
    for name, gradient in wanted.items():
        assert float((got[name] - gradient).norm() / gradient.norm()) < 1e-4, name


def test_the_compared_answers_are_equal(tiny_model: ModelRef) -> None:
    engine = importlib.import_module("benchmarks.engines.train_answers")
    prompts = [[1, 40 + number, *range(41, 44 + number)] for number in range(5)]
    stock = engine.stock(load_base(tiny_model, dtype=torch.float32), prompts, 12, 2, 2)
    single = engine.stock(load_base(tiny_model, dtype=torch.float32), prompts, 12, 2, 1)
    references = [[5, 6, 2]] * 5
    model = load_base(tiny_model, dtype=torch.float32)
    engine.warm_up(model, prompts, 2, 2)
    ours = engine.ours(model, prompts, None, 12, 2, 2)
    scored = engine.ours(load_base(tiny_model, dtype=torch.float32), prompts, references, 12, 2, 2)
    assert ours == scored == stock == single
    assert agreement(ours, stock) == 1.0


def test_the_trials_of_a_sweep_share_their_trunk(
    prepared: Prepared, tiny_model: ModelRef, tmp_path: Path, run_here: Callable[..., None]
) -> None:
    spec = spec_of(dtype="float32", adapter=AdapterSpec(rank=4, layers=1), epochs=2)
    plain = {name: ref.model_dump(mode="json") for name, ref in (("dataset", prepared.dataset), ("model", tiny_model))}
    job = {**plain, "spec": spec.model_dump(mode="json"), "threads": 1, "rates": [1e-3, 2e-3]}
    write_json(tmp_path / "job.json", job)
    answer = tmp_path / "answer.json"
    run_here("train_own.py", "sweep-on", tmp_path / "job.json", answer)
    one, other = (trial["validation_loss"] for trial in json.loads(answer.read_text())["trials"])
    assert one != other
    assert len([path for path in (tmp_path / "trunks").iterdir() if path.is_dir()]) == 1


def test_a_failed_run_has_a_row_with_its_reason() -> None:
    failed = Result(CONTESTANTS[-1], (Run(failure="failed (1): no module"),))
    assert "failed (1): no module" in training_table([failed])
