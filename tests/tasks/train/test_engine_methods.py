"""rsLoRA, DoRA, selected layers, 8-bit moments: each trains, the fast path is exact, and serving matches training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from schemas.artifacts import DatasetRef, ModelRef
from schemas.errors import ConfigError
from schemas.training import AdapterSpec, QuantizationSpec, TrainSpec
from tasks.model.adapter import load_trained, open_for_training, trainable_tensors
from tasks.model.decoding.decoder import has_plain_layers
from tasks.model.decoding.fused_decoder import FusedDecoder, open_decoder
from tasks.model.decoding.plain_decoder import PlainDecoder
from tasks.train.batches import Examples
from tasks.train.fast.decoder import FastDecoder
from tasks.train.forward import losses_of, plain_losses
from tasks.train.optimizer import learning_rate_at, make_optimizer
from tests.support.trained import perturb, save

MakeSpec = Callable[..., TrainSpec]

IDS = torch.arange(3, 23)[None]
ADAPTERS = {
    "rslora": AdapterSpec(rank=4, alpha=8, rslora=True),
    "dora": AdapterSpec(rank=4, alpha=8, dora=True),
    "layers": AdapterSpec(rank=4, layers=(0,), target_modules=("q_proj", "down_proj"), rslora=True),
}


def _perturbed(model: ModelRef, spec: TrainSpec) -> nn.Module:
    return perturb(open_for_training(model, spec))


@pytest.mark.parametrize("name", ADAPTERS)
def test_peft_and_our_loader_answer_like_the_trained_model(
    tiny_model: ModelRef, make_spec: MakeSpec, tmp_path: Path, name: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    spec = make_spec(adapter=ADAPTERS[name])
    model = _perturbed(tiny_model, spec)
    trained = save(model, spec, tiny_model, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_model.root, dtype=torch.float32)
    bare = base(input_ids=IDS).logits.detach()
    with torch.no_grad():
        wanted = model(input_ids=IDS).logits
        ours = load_trained(tiny_model, trained, dtype="float32")(input_ids=IDS).logits
        peft = PeftModel.from_pretrained(base, trained.root)(input_ids=IDS).logits
    torch.testing.assert_close(ours, wanted)
    torch.testing.assert_close(peft, wanted)
    assert float((wanted - bare).abs().max()) > 0.01


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_fast_path_is_exact_or_is_not_taken(
    tiny_model: ModelRef, make_spec: MakeSpec, dataset: DatasetRef, name: str
) -> None:
    model = _perturbed(tiny_model, make_spec(adapter=ADAPTERS[name]))
    batch = Examples(dataset.root / "train").batch([0, 1, 2])
    chosen = losses_of(model, dtype=torch.float32, recompute=False)
    assert isinstance(chosen, FastDecoder) == (name != "dora")
    plain = plain_losses(model, dtype=torch.float32, recompute=False)
    gradients = []
    for losses in (chosen, plain):
        model.zero_grad()
        losses(batch).mean().backward()  # type: ignore[no-untyped-call]
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert len(gradients[0]) == sum(tensor.numel() for tensor in trainable_tensors(model).values())
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-5


@pytest.mark.parametrize("name", ADAPTERS)
def test_generation_matches_the_model(tiny_model: ModelRef, make_spec: MakeSpec, name: str) -> None:
    model = _perturbed(tiny_model, make_spec(adapter=ADAPTERS[name])).eval()
    ids = IDS[0].tolist()
    with torch.no_grad():
        wanted = model(input_ids=IDS).logits[0, -1]
        decoder = open_decoder(model, ids[:2])
        got = decoder.read([ids], room=1).next_logits()[0]
    assert isinstance(decoder, PlainDecoder if name == "dora" else FusedDecoder)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_dora_trains_on_a_four_bit_base_and_is_served_from_it(
    tiny_model: ModelRef, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec(method="qlora", adapter=ADAPTERS["dora"])
    model = _perturbed(tiny_model, spec)
    loaded = load_trained(tiny_model, save(model, spec, tiny_model, tmp_path), dtype="float32")
    with torch.no_grad():
        got, wanted = loaded(input_ids=IDS).logits, model(input_ids=IDS).logits
    torch.testing.assert_close(got, wanted)


def test_rslora_scales_by_the_root_of_the_rank(tiny_model: ModelRef, make_spec: MakeSpec) -> None:
    for adapter, scale in ((AdapterSpec(rank=16, alpha=8, rslora=True), 2.0), (AdapterSpec(rank=16, alpha=8), 0.5)):
        model = open_for_training(tiny_model, make_spec(adapter=adapter))
        assert {m.scaling["default"] for m in model.modules() if hasattr(m, "lora_A")} == {scale}  # type: ignore[index]


def test_layers_are_selected_by_number_and_checked(tiny_model: ModelRef, make_spec: MakeSpec) -> None:
    for layers in ((0,), "0-0"):
        model = open_for_training(tiny_model, make_spec(adapter=AdapterSpec(rank=4, layers=layers)))
        assert {name.split(".")[4] for name in trainable_tensors(model)} == {"0"}
    with pytest.raises(ConfigError, match=r"TG0181.*there is no layer 2, the model has layers 0 to 1"):
        open_for_training(tiny_model, make_spec(adapter=AdapterSpec(rank=4, layers="1-2")))


def test_another_compute_dtype_of_the_four_bit_layers_disables_the_fast_paths(
    tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    for dtype in ("auto", "float32", "bfloat16"):
        spec = make_spec(method="qlora", quantization=QuantizationSpec(type="fp4", compute_dtype=dtype))
        model = open_for_training(tiny_model, spec)
        layer = next(module for module in model.modules() if type(module).__name__ == "Linear4bit")
        kinds = {m.weight.quant_state.quant_type for m in model.modules() if hasattr(m, "quant_state")}
        assert kinds <= {"fp4"}
        assert layer.training
        assert has_plain_layers(model) == (dtype != "bfloat16")
        assert bool(model(input_ids=IDS).logits.isfinite().all())


def test_an_already_quantised_base_is_refused_for_qlora(
    tiny_model: ModelRef, make_spec: MakeSpec, tmp_path: Path
) -> None:
    for path in tiny_model.root.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("{", '{"quantization_config": {"quant_method": "gptq"},', 1))
    with pytest.raises(ConfigError, match=r"TG0111.*already quantised \(gptq\)"):
        open_for_training(tiny_model.model_copy(update={"root": tmp_path}), make_spec(method="qlora"))


def _stepped(optimizer: str, *, rows: int, make_spec: MakeSpec) -> tuple[torch.Tensor, torch.optim.Optimizer]:
    torch.manual_seed(0)
    layer = nn.Linear(64, rows, bias=False)
    made = make_optimizer(layer, make_spec(optimizer=optimizer, weight_decay=0.1))
    for step in range(4):
        torch.manual_seed(step)
        layer.weight.grad = torch.randn_like(layer.weight)
        made.step()
    return layer.weight.detach(), made


def test_small_tensors_keep_full_moments_and_large_ones_take_a_quarter(make_spec: MakeSpec) -> None:
    full, _ = _stepped("adamw", rows=16, make_spec=make_spec)
    small, _ = _stepped("adamw_8bit", rows=16, make_spec=make_spec)
    torch.testing.assert_close(small, full)
    exact, wide = _stepped("adamw", rows=256, make_spec=make_spec)
    near, narrow = _stepped("adamw_8bit", rows=256, make_spec=make_spec)
    torch.testing.assert_close(near, exact, rtol=0, atol=2e-3)
    sizes = [
        sum(
            t.numel() * t.element_size()
            for s in made.state.values()
            for k, t in s.items()
            if torch.is_tensor(t) and k[0] != "q"
        )
        for made in (narrow, wide)
    ]
    assert sizes[0] < 0.27 * sizes[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is present")
def test_paged_moments_need_cuda(make_spec: MakeSpec) -> None:
    with pytest.raises(ConfigError, match=r"TG0111.*training runs on cpu"):
        _stepped("paged_adamw_8bit", rows=16, make_spec=make_spec)


def test_rates_warm_up_for_the_declared_steps_and_end_at_the_floor() -> None:
    for scheduler in ("linear", "cosine"):
        spec = TrainSpec.model_validate(
            {"base_model": "x", "learning_rate": 1.0, "allow_unusual_learning_rate": True, "warmup": 4,
             "lr_scheduler": scheduler, "min_lr_ratio": 0.1}
        )  # fmt: skip
        rates = [learning_rate_at(step, spec, n_steps=2000) for step in range(1, 2001)]
        assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
        assert min(rates[4:]) == rates[-1] == pytest.approx(0.1, abs=1e-3)
        assert rates[-1] > 0.1
