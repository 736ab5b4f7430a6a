"""The benchmark on known shapes trains a model of that configuration, and counts operations and time as it says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks.train.contestants import CONTESTANTS
from benchmarks.train.report import Result
from benchmarks.train.runs import Run
from benchmarks.train.shapes import Device, random_model, shapes_figures, shapes_table, step_flops
from benchmarks.train.workload import ADAPTER
from schemas.artifacts import ModelRef
from tasks.model.base_model import load_base
from tasks.train.fit import known_config
from tasks.train.memory import ModelDims, trainable_parameters

TINY = {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "vocab_size": 400,
}  # fmt: skip


def test_a_model_of_known_shapes_is_made_and_loads_strictly(tiny_model: ModelRef, tmp_path: Path) -> None:
    config = known_config("qwen2.5-0.5b") | TINY
    made = random_model(config, tiny_model, tmp_path / "model")
    loaded = load_base(made, dtype=torch.bfloat16)
    assert loaded.config.model_type == "qwen2"
    assert sum(parameter.numel() for parameter in loaded.parameters()) == made.n_parameters
    dims = ModelDims.of(config)
    assert dims is not None
    assert dims.n_parameters == made.n_parameters
    assert json.loads((made.root / "config.json").read_text())["vocab_size"] == TINY["vocab_size"]
    again = random_model(config, tiny_model, tmp_path / "again")
    assert again.digest == made.digest, "random, and the same each time"


def test_the_operations_of_a_step_are_those_that_torch_counts(tiny_model: ModelRef, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from torch.utils.flop_counter import FlopCounterMode

    config = known_config("qwen2.5-0.5b") | TINY
    dims = ModelDims.of(config)
    assert dims is not None
    base = load_base(random_model(config, tiny_model, tmp_path / "model"), dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=ADAPTER.rank, target_modules="all-linear"))  # type: ignore[arg-type]
    ids = torch.arange(3, 43)[None]
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    # torch counts attention's whole squares, of which a causal step needs half, and not the first layer's gradient.
    assert step_flops(dims, 40) * 40 == pytest.approx(counter.get_total_flops(), rel=0.15)
    assert trainable_parameters(dims, ADAPTER) == model.get_nb_trainable_parameters()[0]


def test_the_table_has_a_row_for_each_trainer_and_one_that_is_not_there_says_so() -> None:
    ours, trainer, trl = (one for one in CONTESTANTS if one.role != "peer")
    runs = Run((6.0, 5.0), 1000, 3.0, 2.0, 9.0, 4000.0, 3000.0, 1.0), Run((6.0, 5.1), 1000, 3.0, 4.0, 9.0, 5000.0)
    results = [Result(ours, (runs[0],)), Result(trainer, (runs[1],)), Result(trl, (), "no environment")]
    device = Device.of("NVIDIA H100 80GB HBM3", 1.0, "a CPU")
    table, figures = shapes_table(results, device, 1e9), shapes_figures(results, device, 1e9)
    assert "| tunegate | 500 | 1.00 | 0.1% | 3,000 | 6.000 5.000 |" in table
    assert "| TRL best | no environment |" in table
    assert figures["ratios"] == {"Trainer": 2.0}
    assert math.isclose(figures["tunegate"]["mfu"], 500 * 1e9 / 989e12, abs_tol=1e-4)
    assert figures["Trainer"]["peak_mb"] == 5000, "a trainer that told nothing of the card has its process's peak"
