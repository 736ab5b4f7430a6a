"""Parameters that adapters train and memory, compared with published models (counted with PEFT 0.21.2)."""

import json
from pathlib import Path

import pytest

from schemas.artifacts import ModelRef
from schemas.errors import ConfigError
from schemas.training import AdapterSpec, QuantizationSpec, TrainSpec
from tasks.train.memory import (
    ModelDims,
    estimate_memory,
    memory_advice,
    nf4_bits,
    quantized_bytes,
    trainable_parameters,
)
from tasks.train.model_shapes import known_dims

QV = ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("name", "r16_qv", "r8_qv", "r16_all", "r64_all"),
    [
        ("llama-2-7b", 8_388_608, 4_194_304, 39_976_960, 159_907_840),
        ("llama-3.1-8b", 6_815_744, 3_407_872, 41_943_040, 167_772_160),
        ("mistral-7b", 6_815_744, 3_407_872, 41_943_040, 167_772_160),
        ("qwen2.5-7b", 5_046_272, 2_523_136, 40_370_176, 161_480_704),
        ("llama-2-13b", 13_107_200, 6_553_600, 62_586_880, 250_347_520),
        ("llama-2-70b", 32_768_000, 16_384_000, 207_093_760, 828_375_040),
        ("llama-3.1-70b", 32_768_000, 16_384_000, 207_093_760, 828_375_040),
        ("smollm2-135m", 921_600, 460_800, 4_884_480, 19_537_920),
    ],
)
def test_adapters_train_as_many_parameters_as_peft_counts(
    name: str, r16_qv: int, r8_qv: int, r16_all: int, r64_all: int
) -> None:
    for rank, targets, expected in (
        (16, QV, r16_qv),
        (8, QV, r8_qv),
        (16, "all-linear", r16_all),
        (64, "all-linear", r64_all),
    ):
        assert trainable_parameters(known_dims(name), AdapterSpec(rank=rank, target_modules=targets)) == expected


def test_only_top_layers_count() -> None:
    dims = known_dims("smollm2-135m")
    assert trainable_parameters(dims, AdapterSpec(rank=16, layers=10)) * 3 == 4_884_480
    with pytest.raises(ConfigError, match="31"):
        trainable_parameters(dims, AdapterSpec(layers=31))
    with pytest.raises(ConfigError, match="'v_porj'"):
        trainable_parameters(dims, AdapterSpec(target_modules=("v_porj",)))


@pytest.mark.parametrize(
    ("name", "bf16_gb", "nf4_gb", "ratio"),
    [
        ("llama-2-7b", 13.5, 3.87, 3.49),
        ("llama-3.1-8b", 16.1, 5.70, 2.82),
        ("llama-2-70b", 138.0, 36.37, 3.79),
        ("llama-3.1-70b", 141.1, 39.52, 3.57),
    ],
)
def test_four_bits_shrink_the_whole_model_by_less_than_four(
    name: str, bf16_gb: float, nf4_gb: float, ratio: float
) -> None:
    dims = known_dims(name)
    four = quantized_bytes(dims, QuantizationSpec())
    assert dims.n_parameters * 2 / 1e9 == pytest.approx(bf16_gb, abs=0.06)
    assert four / 1e9 == pytest.approx(nf4_gb, abs=0.008)
    assert dims.n_parameters * 2 / four == pytest.approx(ratio, abs=0.006)
    assert nf4_bits(False) == 4.5


@pytest.mark.parametrize(
    ("name", "targets", "gib"),
    [
        ("llama-2-70b", QV, 35.7),
        ("llama-2-70b", "all-linear", 38.3),
        ("llama-3.1-70b", QV, 39.1),
        ("llama-3.1-70b", "all-linear", 41.7),
    ],
)
def test_qlora_peaks_of_70b_models_are_predicted(name: str, targets: tuple[str, ...] | str, gib: float) -> None:
    spec = TrainSpec(
        base_model="x",
        method="qlora",
        adapter=AdapterSpec(rank=16, target_modules=targets),  # type: ignore[arg-type]
        batch_size=1,
        gradient_checkpointing=True,
    )
    estimate = estimate_memory(known_dims(name), spec, max_tokens=512)
    assert estimate.total / 2**30 == pytest.approx(gib, rel=0.02)
    assert sum(value for part, value in estimate.parts().items() if part != "total") == estimate.total


@pytest.mark.parametrize("targets", [QV, "all-linear"])
def test_a_published_peak_of_an_8b_qlora_is_predicted_within_ten_percent(targets: tuple[str, ...] | str) -> None:
    """7.4 GiB: Llama-3.1-8B, batch 2 x 2048, checkpointing, chunked cross-entropy.

    The source does not state the adapter, so the small and the large one must both come close."""
    spec = TrainSpec(
        base_model="x",
        method="qlora",
        adapter=AdapterSpec(rank=16, target_modules=targets),  # type: ignore[arg-type]
        batch_size=2,
        gradient_checkpointing=True,
    )
    estimate = estimate_memory(known_dims("llama-3.1-8b"), spec, max_tokens=2048, n_logit_positions=128)
    assert estimate.total / 2**30 == pytest.approx(7.4, rel=0.10)
    # With all logits at once, the vocabulary of 128k would dominate.
    whole = estimate_memory(known_dims("llama-3.1-8b"), spec, max_tokens=2048)
    assert whole.logits > 0.8 * 5.70e9


@pytest.mark.parametrize(("dtype", "n_bytes"), [("float32", 16), ("bfloat16", 18)])
def test_our_full_tuning_takes_sixteen_bytes_per_weight_and_two_for_autocasts_copy(dtype: str, n_bytes: int) -> None:
    dims = known_dims("llama-2-7b")
    settings = {"base_model": "x", "method": "full", "learning_rate": 1e-5, "batch_size": 1, "dtype": dtype}
    estimate = estimate_memory(dims, TrainSpec.model_validate(settings), max_tokens=1)
    # Four numbers in float32: weight, gradient and two moments.
    assert estimate.weights + estimate.gradients + estimate.optimizer == n_bytes * dims.n_parameters


def test_activations_grow_with_the_batch_and_checkpointing_saves_memory() -> None:
    dims = known_dims("smollm2-135m")
    small, large, cheap = (
        estimate_memory(
            dims, TrainSpec(base_model="x", batch_size=batch, gradient_checkpointing=checkpointing), max_tokens=100
        )
        for batch, checkpointing in ((4, False), (8, False), (8, True))
    )
    assert large.activations == 2 * small.activations
    assert large.logits == 2 * small.logits
    assert cheap.activations < large.activations / 3


def test_shapes_are_read_from_the_model(tiny_model: ModelRef, tmp_path: Path) -> None:
    dims = ModelDims.read(tiny_model.root / "config.json")
    assert dims is not None
    assert dims.n_parameters == tiny_model.n_parameters
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert ModelDims.read(tmp_path / "config.json") is None
    with pytest.raises(ConfigError, match="lives_nowhere cannot be used: the installed transformers does not know it"):
        ModelDims.of({"model_type": "lives_nowhere"})


def test_advice_names_only_settings_that_can_still_change() -> None:
    spec = TrainSpec(base_model="x", method="qlora", batch_size=1, gradient_checkpointing=True)
    assert memory_advice(spec) == "use a smaller base model"
    assert "halve train.batch_size (8)" in memory_advice(TrainSpec(base_model="x"))
