"""Adapters: which layers they change, what is saved, and what is refused on loading."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from schemas.artifacts import ModelRef, TrainedRef
from schemas.errors import ConfigError, StorageError, TrainingError
from schemas.training import TrainSpec
from tasks.model.adapter import load_trained, open_for_training, save_trained, trainable_tensors
from tasks.model.base_model import load_base
from tasks.storage.files import sha256_file
from tests.support.trained import perturb, save

Saved = Callable[..., tuple[nn.Module, TrainedRef]]


def _spec(method: str = "lora", **settings: object) -> TrainSpec:
    rate = {"learning_rate": 1e-4} if method == "full" else {}
    defaults: dict[str, object] = {"base_model": "file:tiny", "method": method, "dtype": "float32", **rate}
    return TrainSpec.model_validate(defaults | settings)


@pytest.fixture
def saved(tiny_model: ModelRef, tmp_path: Path) -> Saved:
    """Open the tiny model, change its trainable weights, and save it."""

    def make(spec: TrainSpec) -> tuple[nn.Module, TrainedRef]:
        model = perturb(open_for_training(tiny_model, spec))
        return model, save(model, spec, tiny_model, tmp_path / "out")

    return make


IDS = torch.arange(3, 23)[None]


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_a_saved_model_answers_like_the_trained_one(tiny_model: ModelRef, saved: Saved, method: str) -> None:
    model, trained = saved(_spec(method))
    loaded = load_trained(tiny_model, trained, dtype="float32")
    assert not any(module.training for module in loaded.modules())
    with torch.no_grad():
        wanted = model(input_ids=IDS).logits
        got = loaded(input_ids=IDS).logits
        base = load_trained(tiny_model, None, dtype="float32")(input_ids=IDS).logits
    # In eval mode, bitsandbytes multiplies 4-bit weights with another kernel than in training.
    tolerance = 0.05 if method == "qlora" else 1e-5
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)
    assert float((got - base).abs().max()) > 0.1


def test_peft_itself_reads_the_adapter(tiny_model: ModelRef, saved: Saved) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model, trained = saved(_spec(adapter={"rank": 4, "target_modules": ["q_proj", "down_proj"]}))
    base = AutoModelForCausalLM.from_pretrained(tiny_model.root, dtype=torch.float32)
    with torch.no_grad():
        wanted = model(input_ids=IDS).logits
        got = PeftModel.from_pretrained(base, trained.root)(input_ids=IDS).logits
    torch.testing.assert_close(got, wanted)


def test_only_the_factors_train_in_float32_on_a_frozen_bfloat16_base(tiny_model: ModelRef) -> None:
    model = open_for_training(tiny_model, _spec(dtype="bfloat16"))
    kinds = {(parameter.requires_grad, parameter.dtype) for parameter in model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    assert all("lora_" in name for name in trainable_tensors(model))


def test_qlora_stores_every_linear_layer_of_the_decoder_in_four_bits(tiny_model: ModelRef) -> None:
    from bitsandbytes.nn import Linear4bit

    model = open_for_training(tiny_model, _spec("qlora"))
    assert sum(isinstance(module, Linear4bit) for module in model.modules()) == 14


def test_full_trains_every_weight_once(tiny_model: ModelRef) -> None:
    model = open_for_training(tiny_model, _spec("full"))
    assert sum(tensor.numel() for tensor in trainable_tensors(model).values()) == tiny_model.n_parameters


def test_top_layers_do_not_change_lower_ones(tiny_model: ModelRef) -> None:
    model = open_for_training(tiny_model, _spec(adapter={"layers": 1}))
    assert {name.split(".")[4] for name in trainable_tensors(model)} == {"1"}
    with pytest.raises(ConfigError, match=r"TG0181.*there are no 3 layers, the model has layers 0 to 1"):
        open_for_training(tiny_model, _spec(adapter={"layers": 3}))


def test_a_misspelt_target_is_refused_although_others_exist(tiny_model: ModelRef) -> None:
    with pytest.raises(ConfigError, match=r"TG0181.*no linear layer 'v_porj'; it has down_proj, gate_proj") as caught:
        open_for_training(tiny_model, _spec(adapter={"target_modules": ["q_proj", "v_porj"]}))
    assert caught.value.hint == "did you mean 'v_proj'?"


def test_equal_weights_give_equal_bytes(tiny_model: ModelRef, tmp_path: Path) -> None:
    spec = _spec()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_trained(open_for_training(tiny_model, spec), spec, base=tiny_model, out=tmp_path / name)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert sha256_file(tmp_path / "one" / name) == sha256_file(tmp_path / "two" / name)
    settings = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert settings["target_modules"] == sorted(settings["target_modules"])
    assert settings["base_model_name_or_path"] == tiny_model.uri


def test_the_seed_decides_the_random_factor_and_no_other_randomness(tiny_model: ModelRef) -> None:
    torch.manual_seed(0)
    first = trainable_tensors(open_for_training(tiny_model, _spec(seed=1)))
    state = torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)
    second = trainable_tensors(open_for_training(tiny_model, _spec(seed=2)))
    name = next(name for name in first if "lora_A" in name)
    assert not torch.equal(first[name], second[name])


def test_weights_that_are_not_finite_are_never_saved(tiny_model: ModelRef, tmp_path: Path) -> None:
    model = open_for_training(tiny_model, _spec())
    next(iter(trainable_tensors(model).values()))[0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"TG0401.*NaN or infinity"):
        save_trained(model, _spec(), base=tiny_model, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensors: tensors.pop(min(tensors)), "lacks 1 tensors"),
        (lambda tensors: tensors.update({"extra": torch.zeros(1)}), "has unknown 1 tensors, e.g. extra"),
        (lambda tensors: tensors.update({min(tensors): torch.zeros(3, 3)}), r"has shape \(3, 3\)"),
        (lambda tensors: tensors[min(tensors)][0].fill_(float("nan")), "TG0535.*contains NaN or infinity"),
        (lambda tensors: tensors[min(tensors)].fill_(float("inf")), "TG0535.*contains NaN or infinity"),
    ],
    ids=["missing", "unknown", "shape", "no-number", "infinite"],
)
def test_a_damaged_adapter_is_refused(
    tiny_model: ModelRef, saved: Saved, damage: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    _, trained = saved(_spec())
    path = trained.root / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    damage(tensors)
    save_file(tensors, path)
    with pytest.raises(StorageError, match=message):
        load_trained(tiny_model, trained, dtype="float32")


def test_a_truncated_adapter_is_refused(tiny_model: ModelRef, saved: Saved) -> None:
    _, trained = saved(_spec())
    path = trained.root / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StorageError, match=r"TG0510.*does not load"):
        load_trained(tiny_model, trained, dtype="float32")


def test_an_adapter_is_not_loaded_on_another_base(tiny_model: ModelRef, saved: Saved) -> None:
    _, trained = saved(_spec())
    with pytest.raises(TrainingError, match=r"TG0403.*not on base 0000"):
        load_trained(tiny_model.model_copy(update={"digest": "0" * 64}), trained, dtype="float32")


def test_full_training_does_not_copy_the_stores_files_of_its_base(tiny_model: ModelRef, tmp_path: Path) -> None:
    stored, out = tmp_path / "stored", tmp_path / "out"
    shutil.copytree(tiny_model.root, stored)
    (stored / "artifact.json").write_text("{}")
    out.mkdir()
    base = tiny_model.model_copy(update={"root": stored})
    save_trained(open_for_training(base, _spec("full")), _spec("full"), base=base, out=out)
    assert not {"artifact.json", "MANIFEST.json"} & {path.name for path in out.iterdir()}
    assert (out / "tokenizer.json").exists()


def test_a_layer_in_full_precision_is_refused(tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch) -> None:
    # bitsandbytes quantises every layer of the available models, so restore one, like a layer of an unknown kind.
    import tasks.model.adapter as module

    def one_layer_left(*arguments: Any, **options: Any) -> Any:
        model = load_base(*arguments, **options)
        model.model.layers[0].mlp.up_proj = nn.Linear(64, 128, bias=False)
        return model

    monkeypatch.setattr(module, "load_base", one_layer_left)
    with pytest.raises(TrainingError, match="TG0403"):
        open_for_training(tiny_model, _spec("qlora"))
