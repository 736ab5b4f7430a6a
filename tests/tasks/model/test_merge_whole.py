"""A merged model answers like the base and the adapter it was made from, or is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.artifacts import ModelRef, TrainedRef
from schemas.errors import TrainingError
from schemas.training import TrainSpec
from tasks.model.adapter import load_trained
from tasks.model.base_model import load_base, load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.merge import write_merged
from tests.support.trained import save_perturbed

TALK = [{"role": "user", "content": "Where is my parcel NB-10234?\n\n1000 thanks \U0001f642"}]


def _texts(model: ModelRef) -> list[list[int]]:
    codec = ChatCodec.of(load_tokenizer(model), "instruction")
    return [[*codec.prompt_ids(TALK), *codec.answer_ids("We are sorry to hear that.")]]


def _logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return out


def _trained(model: ModelRef, out: Path, method: str = "lora") -> TrainedRef:
    spec = TrainSpec.model_validate({"base_model": "x", "method": method, "dtype": "float32", "learning_rate": 1e-4})
    return save_perturbed(model, spec, out)


def test_a_fully_trained_model_is_compared_with_itself(tiny_model: ModelRef, tmp_path: Path) -> None:
    trained = _trained(tiny_model, tmp_path / "trained", "full")
    (tmp_path / "out").mkdir()
    parity = write_merged(
        tiny_model, trained, texts=_texts(tiny_model), stored="float32", dtype="float32", out=tmp_path / "out"
    )
    assert parity.max_logit_difference == 0.0
    assert parity.adapter_effect > 0.1
    other = tiny_model.model_copy(update={"root": tmp_path / "out"})
    (text,) = _texts(tiny_model)
    full = load_trained(tiny_model, trained, dtype="float32")
    assert torch.equal(_logits(load_base(other, dtype=torch.float32), text), _logits(full, text))


def test_a_model_without_the_adapter_is_refused(
    tiny_model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, out = _trained(tiny_model, tmp_path / "trained"), tmp_path / "out"
    out.mkdir()

    def write_without_adapter(model: ModelRef, *_: object, out: Path, **__: object) -> ModelRef:
        return model.model_copy(update={"root": shutil.copytree(model.root, out, dirs_exist_ok=True)})

    monkeypatch.setattr("tasks.model.merge.merge_adapter", write_without_adapter)
    with pytest.raises(TrainingError, match="does not answer as its parts"):
        write_merged(tiny_model, trained, texts=_texts(tiny_model), stored="bfloat16", dtype="float32", out=out)
