"""Several adapters on one base: each answers as if alone, and the base is in memory once."""

from pathlib import Path

import pytest
import torch

from schemas.artifacts import ModelRef, TrainedRef
from schemas.errors import TrainingError
from schemas.evaluation import DecodingSpec
from schemas.training import TrainSpec
from tasks.model.answer_engine import Engine, greedy
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.decoding.fused_decoder import FusedDecoder
from tasks.model.shared_base import SharedBases
from tests.support.trained import save_perturbed

DECODING = DecodingSpec(max_new_tokens=10, batch_size=1, threads=1, dtype="float32")


def _trained(model: ModelRef, out: Path, seed: int, method: str = "lora", **adapter: object) -> TrainedRef:
    settings = {"base_model": "x", "method": method, "dtype": "float32", "learning_rate": 1e-4}
    spec = TrainSpec.model_validate({**settings, "adapter": {"rank": 4, **adapter}})
    return save_perturbed(model, spec, out, seed=seed, size=0.1)


def _alone(model: ModelRef, trained: TrainedRef, codec: ChatCodec, prompt: list[int]) -> list[int]:
    engine = Engine.load(model, trained, DECODING, codec, [])
    with torch.inference_mode():
        reading = engine.decoder.read([prompt], room=DECODING.max_new_tokens)
        return greedy(reading, 1, DECODING.max_new_tokens, engine.stops)[0]


def test_each_adapter_answers_as_if_alone_and_the_base_is_loaded_once(tiny_model: ModelRef, tmp_path: Path) -> None:
    codec = ChatCodec.of(load_tokenizer(tiny_model), "instruction")
    prompt = codec.prompt_ids([{"role": "user", "content": "Where is my parcel?"}])
    kinds: list[tuple[str, dict[str, object]]] = [
        ("lora", {}), ("lora", {}), ("full", {}), ("lora", {"dora": True}), ("qlora", {}), ("lora", {})
    ]  # fmt: skip
    trained = [
        _trained(tiny_model, tmp_path / str(seed), seed, method, **adapter)
        for seed, (method, adapter) in enumerate(kinds)
    ]
    bases = SharedBases()
    generators = [bases.load(tiny_model, each, DECODING, codec) for each in trained]
    answers = [list(generator.generate(prompt, max_new_tokens=DECODING.max_new_tokens)) for generator in generators]
    assert answers == [_alone(tiny_model, each, codec, prompt) for each in trained]
    assert len({tuple(answer) for answer in answers}) > 3

    first, second = (generator.decoder for generator in generators[:2])
    assert isinstance(first, FusedDecoder)
    assert isinstance(second, FusedDecoder)
    for one, two in zip(first.layers, second.layers, strict=True):
        for name in ("qkv", "out", "gate_up", "down"):
            assert getattr(one, name).weight.data_ptr() == getattr(two, name).weight.data_ptr()
            assert getattr(one, name).weight.shape == getattr(two, name).weight.shape
    assert first.embedding.data_ptr() == second.embedding.data_ptr()


def test_an_unused_base_is_dropped(tiny_model: ModelRef, tmp_path: Path) -> None:
    codec = ChatCodec.of(load_tokenizer(tiny_model), "instruction")
    bases = SharedBases()
    bases.load(tiny_model, _trained(tiny_model, tmp_path / "a", 1), DECODING, codec)
    assert bases.holds(tiny_model, DECODING)
    bases.keep_only(set())
    assert not bases.holds(tiny_model, DECODING)


def test_an_adapter_of_another_base_is_refused(tiny_model: ModelRef, tmp_path: Path) -> None:
    codec = ChatCodec.of(load_tokenizer(tiny_model), "instruction")
    foreign = _trained(tiny_model, tmp_path / "a", 1).model_copy(update={"base_digest": "other"})
    with pytest.raises(TrainingError, match="trained on base other"):
        SharedBases().load(tiny_model, foreign, DECODING, codec)
