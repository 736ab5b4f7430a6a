"""Small data sets and settings for training."""

import multiprocessing
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import DatasetRef
from schemas.training import AdapterSpec, TrainSpec
from tasks.storage.failpoint import VARIABLE
from tasks.storage.files import write_json
from tasks.storage.sealed_folder import seal
from tasks.train.job import TrainJob

MakeDataset = Callable[..., DatasetRef]
MakeSpec = Callable[..., TrainSpec]
Run = Callable[..., int | None]


def write_dataset(
    root: Path,
    *,
    n_train: int = 24,
    n_validation: int = 4,
    vocab: int = 280,
    seed: int = 0,
    half_tokens: tuple[int, int] = (4, 14),
    n_prefix: int = 0,
) -> DatasetRef:
    """Write examples of 8 to 28 tokens whose second half repeats the first: learnable, and of different lengths.

    All begin with the same `n_prefix` tokens, followed by one that differs between neighbours.
    """
    from datasets import Dataset, Features, Sequence, Value

    rng = random.Random(seed)
    features = Features(
        {"ticket_id": Value("string"), "input_ids": Sequence(Value("int32")), "loss_mask": Sequence(Value("int8"))}
    )
    counts = {}
    for split, n_examples in (("train", n_train), ("validation", n_validation)):
        rows: dict[str, list[Any]] = {"ticket_id": [], "input_ids": [], "loss_mask": []}
        for number in range(n_examples):
            half = [rng.randrange(3, vocab) for _ in range(rng.randint(*half_tokens))]
            rows["ticket_id"].append(f"{split}-{number:04d}")
            prefix = [*range(3, 3 + n_prefix), 3 + number % 2] if n_prefix else []
            rows["input_ids"].append(prefix + half + half)
            rows["loss_mask"].append([0] * (len(prefix) + len(half)) + [1] * len(half))
        Dataset.from_dict(rows, features=features).save_to_disk(str(root / split))
        counts[split] = rows
    lengths = [len(ids) for ids in counts["train"]["input_ids"]]
    return DatasetRef(
        root=root,
        digest=seal(root),
        n_train=n_train,
        n_validation=n_validation,
        n_tokens=sum(lengths),
        n_supervised=sum(map(sum, counts["train"]["loss_mask"])),
        n_dropped=0,
        max_tokens=max(lengths, default=0),
    )


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetRef:
    """24 train and 4 validation examples."""
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """Write a data set of other sizes."""
    return lambda **sizes: write_dataset(tmp_path / "dataset", **sizes)


@pytest.fixture
def make_prefixed(tmp_path: Path) -> MakeDataset:
    """Write a data set whose examples share a prefix."""
    return lambda **sizes: write_dataset(tmp_path / "prefixed", **sizes)


@pytest.fixture
def make_spec() -> MakeSpec:
    """Settings for the tiny model; keywords override them."""

    def make(**settings: Any) -> TrainSpec:
        adapter = settings.pop("adapter", AdapterSpec(rank=4, alpha=8))
        defaults = {
            "base_model": "file:tiny",
            "adapter": adapter,
            "dtype": "float32",
            "learning_rate": 2e-3,
            "batch_size": 4,
            "epochs": 2,
            "save_every": 3,
            "seed": 3,
            "threads": 1,
        }
        return TrainSpec.model_validate(defaults | settings)

    return make


@pytest.fixture(scope="session")
def processes() -> multiprocessing.context.ForkServerContext:
    """Starts processes that already have torch loaded: real ones, without ten seconds of imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tasks.train.worker", "tasks.train.engine", "peft", "datasets"])
    return context


@pytest.fixture
def run(processes: multiprocessing.context.ForkServerContext) -> Run:
    """Run the training process on a job; return its exit code."""

    def work(job: TrainJob, failpoint: str = "", *, lock_wait_s: float = 15.0, more_bytes: int = 0) -> int | None:
        job.scratch.mkdir(exist_ok=True)
        write_json(job.scratch / "job.json", job.model_dump(mode="json"))
        limit = (
            "import resource;"
            "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
            f"resource.setrlimit(resource.RLIMIT_AS, (used + {more_bytes}, used + {more_bytes}));"
            if more_bytes
            else ""
        )
        settings = {VARIABLE: failpoint, "OMP_NUM_THREADS": "1"}
        code = (
            f"import os, sys; from pathlib import Path; os.environ.update({settings!r});"
            f"{limit}from tasks.train.worker import main;"
            f"sys.exit(main(Path({str(job.scratch / 'job.json')!r}), lock_wait_s={lock_wait_s}))"
        )
        process = processes.Process(target=exec, args=(code, {}))
        process.start()
        process.join()
        return process.exitcode

    return work
