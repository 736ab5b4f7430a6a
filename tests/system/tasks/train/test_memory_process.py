"""The predicted peak memory of a training process, compared with real processes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.artifacts import DatasetRef, ModelRef
from schemas.training import TrainSpec
from tasks.train.job import MEMORY_FIGURES, PROGRESS, ProgressLog
from tasks.train.launch import train_model

_MANY_SHAPES = """
import ctypes, sys
import torch
from schemas.artifacts import ModelRef
from tasks.model.base_model import load_base

def held():
    status = open("/proc/self/status").read()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024

torch.set_num_threads(1)
load_base(ModelRef.model_validate_json(sys.argv[1]), dtype=torch.bfloat16)
weight = torch.randn(256, 256).bfloat16()
def multiply(first):
    for n_rows in range(first, first + 300):
        torch.randn(n_rows, 256).bfloat16() @ weight
    ctypes.CDLL(None).malloc_trim(0)
    return held()
before = multiply(1)
print(multiply(301) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_products_of_many_shapes_take_no_more_memory(tiny_model: ModelRef) -> None:
    """Each batch has a new number of tokens; 300 of them once kept 200 MB on processors with bfloat16."""
    done = subprocess.run(
        [sys.executable, "-c", _MANY_SHAPES, tiny_model.model_dump_json()],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert int(done.stdout) < 40e6


@pytest.mark.campaign
@pytest.mark.model
@pytest.mark.skipif(sys.platform != "linux", reason="the runtime's share is measured on Linux")
def test_real_peaks_of_the_three_methods_are_predicted_within_fifteen_percent(
    tmp_path: Path, smollm2: ModelRef, make_dataset: Callable[..., DatasetRef], make_spec: Callable[..., TrainSpec]
) -> None:
    data = make_dataset(n_train=4, n_validation=0, vocab=40000, half_tokens=(30, 32))
    for method in ("lora", "qlora", "full"):
        scratch, out = tmp_path / method / "scratch", tmp_path / method / "out"
        scratch.mkdir(parents=True)
        out.mkdir()
        # A new process: in a fork, the libraries' pages count only once they are touched.
        spec = make_spec(method=method, batch_size=2, epochs=1, learning_rate=1e-4)
        train_model(dataset=data, model=smollm2, spec=spec, out=out, scratch=scratch)
        entry = ProgressLog(scratch / PROGRESS).read(0)[0][-1]
        predicted, peak = (entry[name] for name in MEMORY_FIGURES)
        assert predicted == pytest.approx(peak, rel=0.15), method
