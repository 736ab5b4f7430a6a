"""The training benchmark compares like with like: equal batches, curves, gradients and answers, on the tiny model."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.measure import Bench
from benchmarks.train.trainers import CONTESTANTS, Place, Result, figures, plan, read_run, run_training, training_table
from benchmarks.train.workload import Prepared
from schemas.artifacts import ModelRef
from tests.benchmarks.train.test_report import prepared, run_here

STEPS, BATCH = 3, 2
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the benchmarks read /proc: Linux only")


def test_our_step_and_trainer_reach_the_same_losses(
    prepared: Prepared, tiny_model: ModelRef, tmp_path: Path, run_here: Callable[..., None]
) -> None:
    place = Place(
        Bench("train", True, False, tmp_path, {}), tmp_path, threads=1, dtype="float32", limit_s=550.0,
        pythons={"trl": Path(sys.executable)},
    )  # fmt: skip
    trainer = next(one for one in CONTESTANTS if one.role == "trainer")
    stock = run_training(trainer, tiny_model.root, prepared.folder, place)
    run_here("train_own.py", "train", tiny_model.root, prepared.folder, tmp_path / "ours.json")
    answer, examples = (
        json.loads(path.read_text()) for path in (tmp_path / "ours.json", prepared.folder / "examples.json")
    )
    ours = read_run(answer, examples, peak_mb=stock.peak_mb)
    assert not ours.failure, ours.failure
    assert not stock.failure, stock.failure
    assert len(ours.losses) == STEPS
    assert ours.n_tokens == stock.n_tokens > 0
    # Trainer logs four digits.
    assert ours.losses == pytest.approx(stock.losses, abs=2e-3)
    assert ours.validation_loss == pytest.approx(stock.validation_loss, abs=1e-3)
    assert len(set(ours.losses)) == STEPS
    by_role = {one.role: one for one in plan(quick=True)}
    results = [Result(by_role["ours"], (ours,)), Result(by_role["trainer"], (stock,)), Result(by_role["trl"], ())]
    assert figures(results)["ratio_trainer"] > 0
    assert figures(results)["ratio_trl"] is None
    assert "not run" in training_table(results)
