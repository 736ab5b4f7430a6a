"""Training with several real processes on the tiny model: the same result, whichever process dies and when."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from schemas.artifacts import DatasetRef, ModelRef
from schemas.training import AdapterSpec, EarlyStoppingSpec, TrainSpec
from tasks.storage.sealed_folder import MANIFEST
from tasks.train.job import CHECKPOINTS, FINAL, PROGRESS, ProgressLog, TrainJob
from tasks.train.launch import train_model
from tests.support.forked_training import server_with_torch, train_forked
from tests.support.two_ranks import CASES, compare

MakeSpec = Callable[..., TrainSpec]
Run = Callable[..., int | None]

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora"},
    "qlora": {"method": "qlora"},
    "full": {"method": "full", "learning_rate": 1e-3, "allow_unusual_learning_rate": True},
}


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Starts processes that already have torch loaded."""
    return server_with_torch()


@pytest.fixture
def run(processes: multiprocessing.context.ForkServerContext, dataset: DatasetRef, tiny_model: ModelRef) -> Run:
    """Train in `folder`; return the exit code."""

    def work(spec: TrainSpec, scratch: Path, failpoint: str = "") -> int | None:
        job = TrainJob(dataset=dataset, model=tiny_model, spec=spec, scratch=scratch, threads=1)
        return train_forked(processes, job, failpoint)

    return work


def test_processes_that_differ_do_not_train_together(
    tmp_path: Path, processes: multiprocessing.context.ForkServerContext
) -> None:
    ranks = [processes.Process(target=compare, args=(rank, tmp_path)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    found, other = (orjson.loads((tmp_path / f"{rank}.json").read_bytes()) for rank in range(2))
    assert found == other
    assert found.keys() == CASES.keys()
    weights = "TG0416 the processes do not start from the same weights"
    assert found == {
        "equal": None,
        "equal, not a number": None,
        "other weights": weights,
        "not a number in one": weights,
        "other steps": "TG0416 the processes do not start from the same steps: 3 and 4",
    }


def _losses(out: Path) -> list[tuple[float, ...]]:
    rows = pq.read_table(out / "curves.parquet").to_pylist()
    return [(row["loss"], row["grad_norm"], row["validation_loss"] or 0.0, row["n_tokens"]) for row in rows]


def _weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(
        out / ("model.safetensors" if (out / "model.safetensors").exists() else "adapter_model.safetensors")
    )


def _assert_same_training(one: Path, several: Path) -> None:
    """Compare losses, norms and weights within the rounding of another order of additions.

    Adam divides by the root of the squared gradient, which magnifies rounding where a gradient is nearly zero: on one
    kind of processor, one weight of thousands differed by 2e-5; a step is 1e-3.
    """
    for alone, shared in zip(_losses(one), _losses(several), strict=True):
        assert shared == pytest.approx(alone, rel=2e-5)
    whole, parts = _weights(one), _weights(several)
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        close = torch.isclose(parts[name], tensor, rtol=1e-4, atol=2e-6)
        assert (~close).float().mean() <= 1e-3, name
        torch.testing.assert_close(parts[name], tensor, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_as_one_with_twice_the_batch(
    tmp_path: Path, make_spec: MakeSpec, run: Run, method: str
) -> None:
    settings = {"epochs": 1, "save_every": 2, **METHODS[method]}
    # 24 examples in batches of 10: the last has four rows, and its halves differ in supervised tokens.
    one, two, cut = tmp_path / "one", tmp_path / "two", tmp_path / "cut"
    assert run(make_spec(batch_size=10, **settings), one) == 0
    assert run(make_spec(batch_size=5, processes=2, **settings), two) == 0, (two / "worker.log").read_text()
    _assert_same_training(one / FINAL, two / FINAL)
    if method != "qlora":
        sharded = make_spec(batch_size=5, processes=2, sharding="full", **settings)
        assert run(sharded, cut) == 0, (cut / "worker.log").read_text()
        _assert_same_training(one / FINAL, cut / FINAL)


def test_two_processes_validate_answer_and_stop_as_one(tmp_path: Path, make_spec: MakeSpec, run: Run) -> None:
    settings = {
        "learning_rate": 0.01,
        "allow_unusual_learning_rate": True,
        "lr_scheduler": "constant",
        "warmup": 0,
        "validate_every": 2,
        "early_stopping": EarlyStoppingSpec(patience=2),
        "epochs": 6,
        "validation_items": 3,
        "validation_max_new_tokens": 6,
    }
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(make_spec(batch_size=4, **settings), one) == 0
    # Killed when only the first process has kept the best weights, then resumed from an earlier checkpoint.
    spec = make_spec(batch_size=2, processes=2, **settings)
    assert run(spec, two, "train.best.kept:2") == -9
    assert run(spec, two) == 0, (two / "worker.log").read_text()
    got, wanted = (orjson.loads((each / FINAL / "training.json").read_bytes()) for each in (two, one))
    assert got["kept_step"] == wanted["kept_step"] < got["n_steps"] == wanted["n_steps"] < 36
    assert got["validation_loss"] == pytest.approx(wanted["validation_loss"], rel=1e-4)
    for alone, shared in zip(_losses(one / FINAL), _losses(two / FINAL), strict=True):
        assert shared == pytest.approx(alone, rel=1e-3)
    for name, tensor in _weights(one / FINAL).items():
        torch.testing.assert_close(_weights(two / FINAL)[name], tensor, rtol=1e-3, atol=1e-4)
    answers, expected = (pq.read_table(each / FINAL / "validation_answers.parquet").to_pylist() for each in (two, one))
    columns = ("step", "item_id", "text")
    assert [[row[name] for name in columns] for row in answers] == [[row[name] for name in columns] for row in expected]


def test_a_killed_process_ends_all_and_the_retry_gives_the_bytes_of_an_uninterrupted_training(
    tmp_path: Path, dataset: DatasetRef, tiny_model: ModelRef, make_spec: MakeSpec, run: Run
) -> None:
    # With dropout, which each process draws from step and rank alone.
    spec = make_spec(processes=2, batch_size=2, save_every=2, adapter=AdapterSpec(rank=4, dropout=0.2))
    killed = tmp_path / "killed"
    assert run(spec, killed, "train.rank.reduced:4") == -9
    assert "exit codes of the processes: " in (killed / "worker.log").read_text()
    assert [path.name for path in (killed / CHECKPOINTS).iterdir()] == ["step-00000002"]
    assert run(spec, killed) == 0, (killed / "worker.log").read_text()
    events = ProgressLog(killed / PROGRESS).read(0)[0]
    assert [event["step"] for event in events if event["event"] == "started"] == [0, 2]
    # The uninterrupted training runs as a step, with new processes.
    scratch, out = tmp_path / "whole" / "scratch", tmp_path / "whole" / "out"
    scratch.mkdir(parents=True)
    out.mkdir()
    steps: list[int] = []
    train_model(
        dataset=dataset,
        model=tiny_model,
        spec=spec,
        out=out,
        scratch=scratch,
        progress=lambda done, _total, _unit, **_figures: steps.append(done),
    )
    assert steps == [*range(1, 13), 12]
    assert (killed / FINAL / MANIFEST).read_bytes() == (scratch / FINAL / MANIFEST).read_bytes()


def test_a_sharded_training_resumes_from_its_checkpoint(tmp_path: Path, make_spec: MakeSpec, run: Run) -> None:
    # Step 3 is validated and saved.
    spec = make_spec(processes=2, sharding="full", epochs=2, save_every=1, **METHODS["full"])
    assert run(spec, tmp_path / "whole") == 0
    assert run(spec, tmp_path / "killed", "train.checkpoint.renamed:4") != 0
    assert run(spec, tmp_path / "killed") == 0
    manifests = [(tmp_path / name / FINAL / MANIFEST).read_bytes() for name in ("whole", "killed")]
    assert manifests[0] == manifests[1]
