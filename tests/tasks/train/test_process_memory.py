"""The predicted peak of a training process against what real processes reach."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.artifacts import DatasetRef, ModelRef
from schemas.training import TrainSpec
from tasks.train import process_memory
from tasks.train.fit import known_dims
from tasks.train.job import MEMORY_FIGURES, PROGRESS, ProgressLog
from tasks.train.launch import train_model
from tasks.train.process_memory import predict_process

SMOLLM2 = known_dims("smollm2-135m")

PEAKS = [
    # method, batch, tokens, bytes of a number, checkpointing, measured MB (SmolLM2-135M, one thread, Linux, torch 2.15)
    ("lora", 4, 128, 4, False, 2557),
    ("lora", 8, 256, 4, False, 4997),
    ("lora", 4, 128, 4, True, 1865),
    ("lora", 4, 128, 2, False, 1936),
    ("qlora", 4, 128, 4, False, 2539),
    ("qlora", 4, 128, 2, False, 1755),
    ("full", 4, 128, 4, False, 4020),
    ("full", 4, 128, 4, True, 3546),
    ("full", 2, 128, 2, False, 3710),
]
"""Peak resident sets of three steps; half of the tokens carried loss."""


@pytest.mark.parametrize(("method", "batch", "tokens", "number", "checkpointing", "measured"), PEAKS)
def test_measured_peaks_are_predicted_within_six_percent(
    method: str, batch: int, tokens: int, number: int, checkpointing: bool, measured: int
) -> None:
    spec = TrainSpec.model_validate(
        {
            "base_model": "x",
            "method": method,
            "learning_rate": 1e-4,
            "batch_size": batch,
            "gradient_checkpointing": checkpointing,
        }
    )
    found = predict_process(SMOLLM2, spec, number=number, max_tokens=tokens, supervised_share=0.5, stored=538_090_408)
    assert found.total / 1e6 == pytest.approx(measured, rel=0.06)
    assert found.total == max(found.load, sum(v for k, v in found.parts().items() if k not in ("total", "load")))


def test_the_constants_are_those_of_the_fast_path() -> None:
    from tasks.train.fast import attention, kernels

    assert (process_memory._LOSS_ROWS, process_memory._BLOCK) == (kernels.LOSS_ROWS, attention.LONGEST_BLOCK)


def test_only_adapted_layers_keep_activations() -> None:
    def activations(top: int | None) -> int:
        spec = TrainSpec.model_validate({"base_model": "x", "adapter": {"top_layers": top}})
        return predict_process(
            SMOLLM2, spec, number=4, max_tokens=100, supervised_share=0.5, stored=538_090_408
        ).activations

    assert activations(10) * 3 == pytest.approx(activations(None), rel=1e-6)


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
def test_products_of_ever_new_shapes_take_no_more_memory(tiny_model: ModelRef) -> None:
    """Each batch has a new number of tokens; 300 of them kept 200 MB where the processor multiplies bfloat16."""
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
        # A process of its own: in a forked one the libraries' pages count only once they are touched.
        spec = make_spec(method=method, batch_size=2, epochs=1, learning_rate=1e-4)
        train_model(dataset=data, model=smollm2, spec=spec, out=out, scratch=scratch)
        told = ProgressLog(scratch / PROGRESS).read(0)[0][-1]
        predicted, peak = (told[name] for name in MEMORY_FIGURES)
        assert predicted == pytest.approx(peak, rel=0.15), method
