"""Adapters merged into their base: equal answers, or a refusal."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from schemas.artifacts import ModelRef, TrainedRef
from schemas.errors import TrainingError
from schemas.training import TrainSpec
from tasks.model.adapter import load_trained
from tasks.model.base_model import load_base, load_tokenizer
from tasks.model.merge import BOUNDS, Parity, check_parity, measure_parity, merge_adapter, merge_in_float32
from tests.support.trained import save_perturbed

Trained = Callable[..., TrainedRef]


@pytest.fixture
def train(tiny_model: ModelRef, tmp_path: Path) -> Trained:
    """An adapter with random weights, as after training."""

    def make(method: str, *, seed: int = 7, size: float = 0.05) -> TrainedRef:
        rate = {"learning_rate": 1e-4} if method == "full" else {}
        spec = TrainSpec.model_validate({"base_model": "x", "method": method, "dtype": "float32", **rate})
        return save_perturbed(tiny_model, spec, tmp_path / f"{method}-{seed}", seed=seed, size=size)

    return make


def _texts() -> list[list[int]]:
    rng = random.Random(5)
    return [[rng.randrange(3, 300) for _ in range(rng.randint(5, 40))] for _ in range(12)]


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_a_merged_model_answers_like_its_parts(
    tiny_model: ModelRef, train: Trained, tmp_path: Path, method: str, stored: str
) -> None:
    trained = train(method)
    out = tmp_path / "merged"
    out.mkdir()
    merged = merge_adapter(tiny_model, trained, out=out, stored=stored, dtype="float32")  # type: ignore[arg-type]
    found = check_parity(tiny_model, trained, merged, texts=_texts(), stored=stored, dtype="float32")  # type: ignore[arg-type]
    assert found.n_positions == sum(map(len, _texts()))
    assert found.adapter_effect > 0.1
    if stored == "float32":
        assert found.max_logit_difference < 1e-4 * found.adapter_effect
        assert found.argmax_agreement == 1.0
    # A plain model directory with a tokenizer, which loads strictly and has no missing weight.
    assert not list(out.glob("adapter*"))
    assert load_tokenizer(merged).chat_template == load_tokenizer(tiny_model).chat_template
    saved = json.loads((out / "config.json").read_text())
    assert saved["dtype"] == stored
    assert "quantization_config" not in saved


def test_equal_inputs_give_equal_bytes(tiny_model: ModelRef, train: Trained, tmp_path: Path) -> None:
    trained = train("lora")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        merge_adapter(tiny_model, trained, out=tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_model_that_differs_from_its_parts_is_refused(tiny_model: ModelRef, train: Trained, tmp_path: Path) -> None:
    trained, other = train("lora"), train("lora", seed=8)
    (tmp_path / "merged").mkdir()
    merged = merge_adapter(tiny_model, other, out=tmp_path / "merged", stored="float32")
    with pytest.raises(TrainingError, match=r"TG0403.*does not answer as its parts"):
        check_parity(tiny_model, trained, merged, texts=_texts(), stored="float32")
    with pytest.raises(TrainingError, match="does not answer as its parts"):
        # Also the base alone: losing the adapter is the largest difference.
        check_parity(tiny_model, trained, tiny_model, texts=_texts(), stored="bfloat16")
    with pytest.raises(TrainingError, match="of 0 positions"):
        check_parity(tiny_model, other, merged, texts=[], stored="float32")


def test_nan_is_refused(tiny_model: ModelRef, train: Trained) -> None:
    parts, whole = load_trained(tiny_model, train("lora"), dtype="float32"), load_base(tiny_model, dtype=torch.float32)
    whole.model.norm.weight.data[3] = float("nan")
    found = measure_parity(parts, whole, _texts()[:1])
    assert not found.is_within(BOUNDS["bfloat16"])
    assert not Parity(float("nan"), 1.0, 1.0, 9).is_within(BOUNDS["bfloat16"])


def test_an_adapter_is_never_merged_into_a_quantised_base(tiny_model: ModelRef, train: Trained, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"TG0403.*is 4-bit"):
        merge_in_float32(load_trained(tiny_model, train("qlora"), dtype="float32"))
    with pytest.raises(TrainingError, match="bfloat16"):
        merge_in_float32(load_trained(tiny_model, train("lora"), dtype="bfloat16"))
    with pytest.raises(TrainingError, match="no adapter to merge"):
        merge_adapter(tiny_model, train("full"), out=tmp_path)
    with pytest.raises(TrainingError, match="trained on base other"):
        merge_adapter(tiny_model, train("lora", seed=3).model_copy(update={"base_digest": "other"}), out=tmp_path)
