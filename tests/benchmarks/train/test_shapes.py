"""The benchmark on known shapes trains a model of that configuration and counts operations and time correctly."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.measure import Bench
from benchmarks.train.shapes import (
    Amount,
    Device,
    ShapesSize,
    one_card,
    own_flops,
    random_model,
    run_shapes,
    shapes_figures,
    shapes_table,
    step_flops,
)
from benchmarks.train.trainers import CONTESTANTS, Place, Result, Run, read_run
from benchmarks.train.workload import ADAPTER, WORKLOADS, Prepared
from schemas.artifacts import DatasetRef, ModelRef
from tasks.model.base_model import load_base
from tasks.train.memory import trainable_parameters
from tasks.train.model_shapes import ModelDims, known_config

TINY = {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "vocab_size": 400,
}  # fmt: skip


@pytest.fixture
def prepared(tmp_path: Path, tiny_model: ModelRef) -> Callable[..., Prepared]:
    """A workload with the given numbers of tokens; its data is never read."""
    data = DatasetRef(
        root=tmp_path, digest=tiny_model.digest, n_train=1, n_validation=1, n_tokens=1, n_supervised=1, n_dropped=0,
        max_tokens=1,
    )  # fmt: skip
    return lambda **sizes: Prepared(WORKLOADS["routing"], tmp_path, data, **sizes)


def test_a_random_model_of_known_shapes_loads_strictly(tiny_model: ModelRef, tmp_path: Path) -> None:
    config = known_config("qwen2.5-0.5b") | TINY
    made = random_model(config, tiny_model.root, tmp_path / "model")
    loaded = load_base(made, dtype=torch.bfloat16)
    assert loaded.config.model_type == "qwen2"
    assert sum(parameter.numel() for parameter in loaded.parameters()) == made.n_parameters
    dims = ModelDims.of(config)
    assert dims is not None
    assert dims.n_parameters == made.n_parameters
    assert json.loads((made.root / "config.json").read_text())["vocab_size"] == TINY["vocab_size"]
    again = random_model(config, tiny_model.root, tmp_path / "again")
    assert again.digest == made.digest, "random, but the same each time"


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(tiny_model: ModelRef, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="use a larger vocabulary"):
        random_model(known_config("mistral-7b") | TINY | {"vocab_size": 9}, tiny_model.root, tmp_path / "model")


def test_the_operations_of_a_step_equal_the_count_of_torch(tiny_model: ModelRef, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from torch.utils.flop_counter import FlopCounterMode

    config, n_tokens, rank = known_config("qwen2.5-0.5b") | TINY, 40, ADAPTER.rank
    dims = ModelDims.of(config)
    assert dims is not None
    base = load_base(random_model(config, tiny_model.root, tmp_path / "model"), dtype=torch.float32)
    base.set_attn_implementation("eager")
    model = get_peft_model(base, LoraConfig(r=rank, target_modules="all-linear"))
    ids = torch.arange(3, 3 + n_tokens)[None]
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    counted = {str(name).partition(".")[2]: n for name, n in counter.get_flop_counts()["Global"].items()}
    attention = 3 * 2 * n_tokens * dims.heads * dims.d_head * dims.layers
    assert counted["bmm"] == pytest.approx(2 * attention * n_tokens, rel=0.01), "torch counts the whole squares"
    # The gradient of the first layer's input is not needed.
    first = sum(d_in * (d_out + rank) for name, (d_in, d_out) in dims.linear_shapes.items() if name[0] in "qkv")
    assert counted["mm"] + counted["addmm"] == (step_flops(dims, 0) - 2 * first) * n_tokens
    assert step_flops(dims, n_tokens) - step_flops(dims, 0) == attention
    assert trainable_parameters(dims, ADAPTER) == model.get_nb_trainable_parameters()[0]


def test_our_step_computes_the_shared_part_once(prepared: Callable[..., Prepared]) -> None:
    dims = ModelDims.of(known_config("qwen2.5-0.5b") | TINY)
    assert dims is not None
    alone = prepared(n_shared=30, n_own=10.0, n_supervised=40.0)
    assert own_flops(dims, alone, 1) == pytest.approx(step_flops(dims, 40)), "nothing is shared, all carry loss"
    nothing_shared = prepared(n_shared=0, n_own=40.0, n_supervised=40.0)
    assert own_flops(dims, nothing_shared, 8) == pytest.approx(step_flops(dims, 40))
    # Without attention and head, eight rows of 30 shared and 10 own tokens are 110 tokens instead of 320.
    flat = replace(dims, vocab=0, heads=0)
    assert own_flops(flat, prepared(n_shared=30, n_own=10.0, n_supervised=0.0), 8) == pytest.approx(
        step_flops(flat, 0) * 110 / 320
    )


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SHAPE": "qwen2.5"}, "SHAPE=qwen2.5: known shapes are .*qwen2.5-0.5b"),
        ({"TOKENIZER": "/nowhere"}, "no tokenizer.json"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_measured(
    environ: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    little = Amount(steps=1, warm=0, batch_size=1)
    size = ShapesSize(cases=(), rounds=1, on_cpu=little, on_gpu=little)
    with pytest.raises(SystemExit, match=message):
        run_shapes(lambda: tmp_path, size, Place(Bench("train", True, False, tmp_path, {}), tmp_path, 1, "float32"))


def test_the_table_has_a_row_for_each_trainer_and_names_missing_ones() -> None:
    ours, trainer, trl = (one for one in CONTESTANTS if one.role != "peer")
    runs = (
        Run((6.0, 5.0), 1000, 3.0, 2.0, 9.0, 4000.0, on_gpu=True, device_peak_mb=3000.0),
        Run((6.0, 5.1), 1000, 3.0, 4.0, 9.0, 5000.0, on_gpu=True, device_peak_mb=4500.0),
    )
    results = [Result(ours, (runs[0],)), Result(trainer, (runs[1],)), Result(trl, (), "not there: no network")]
    device = Device("NVIDIA H100 80GB HBM3", 7e14, on_gpu=True)
    table, figures = shapes_table(results, device, 1e12, 6e11), shapes_figures(results, device, 1e12, 6e11)
    assert "| tunegate | 500 | 1.00 | 50.6% | 30.3% | 3,000 | 6.000 5.000 |" in table
    assert "| Trainer | 250 | 2.00 | 25.3% | 25.3% | 4,500 | 6.000 5.100 |" in table
    assert "| TRL best | not there: no network |" in table
    assert figures["ratios"] == {"Trainer": 2.0}


def test_warm_up_steps_are_not_timed() -> None:
    steps = [{"loss": 0.0, "cpu_s": 0.0, "wall_s": 0.0}]
    steps += [{"loss": 1.0, "cpu_s": 2.0 * n, "wall_s": 1.0 * n, "device_peak_mb": 100.0 * n} for n in (1, 2, 3)]
    answer = {"steps": steps, "validation_loss": 1.0, "on_gpu": True}
    examples = {"batches": [[0], [1], [2]], "train": [[[1] * 5, []], [[1] * 7, []], [[1] * 11, []]]}
    run = read_run(answer, examples, 9.0, warm=2)
    assert (run.n_tokens, run.cpu_s, run.wall_s, run.device_peak_mb) == (11, 2.0, 1.0, 300.0)
    assert read_run(answer, examples, 9.0).n_tokens == 18


def test_a_part_of_a_card_is_measured_and_only_one_card_is_used() -> None:
    assert Device("NVIDIA L4", 9e13, on_gpu=True).most == 121e12
    part = Device("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9e13, on_gpu=True)
    assert part.most == 9e13
    assert str(part).endswith("90 TFLOP/s measured, 90 used as its peak (the measured)")
    assert one_card({"CUDA_VISIBLE_DEVICES": "2,3"}) == "2"
    assert one_card({}) == "0"
    assert one_card({"CUDA_VISIBLE_DEVICES": ""}) == ""
