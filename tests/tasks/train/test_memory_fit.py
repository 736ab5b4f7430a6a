"""Which method fits which card, computed from shapes alone."""

from dataclasses import replace

import pytest

from schemas.errors import ConfigError
from schemas.training import AdapterSpec, TrainSpec
from tasks.model.adapter import attach_adapter, left_out
from tasks.model.skeleton import build_skeleton
from tasks.train.memory import (
    CARDS,
    MARGIN,
    estimate_memory,
    fit_methods,
    spec_for,
    trainable_parameters,
    trains_experts,
)
from tasks.train.model_shapes import ModelDims, known_config, known_dims, known_models

QV = ("q_proj", "v_proj")
PARAMETERS = {
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b": 999_885_952,
    "gemma-3-4b": 3_880_263_168,
    "gemma-3-12b": 11_766_034_176,
    "gemma-3-27b": 27_009_346_304,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.3-70b": 70_553_706_496,
    "mistral-7b": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "mistral-7b-instruct-v0.3": 7_248_023_552,
    "mistral-nemo": 12_247_782_400,
    "mistral-small-24b": 23_572_403_200,
    "mistral-small-3.1-24b": 23_572_403_200,
    "mistral-small-3.2-24b": 23_572_403_200,
    "phi-4": 14_659_507_200,
    "phi-4-mini": 3_836_021_760,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_630_071_296,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "qwen1.5-moe-a2.7b": 14_315_784_192,
    "olmoe-1b-7b": 6_919_161_856,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "deepseek-v3": 671_026_419_200,
    "deepseek-v2-lite": 15_706_484_224,
    "glm-4.5-air": 106_852_245_504,
    "phi-3.5-moe": 41_873_153_344,
    "granite-3.0-1b-a400m": 1_334_628_352,
    "pythia-1.4b": 1_414_647_808,
    "pythia-6.9b": 6_857_302_016,
    "phi-2": 2_779_683_840,
    "phi-3-mini": 3_821_079_552,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-2-27b": 27_227_128_320,
    "starcoder2-3b": 3_030_371_328,
    "olmo-2-7b": 7_298_617_344,
    "stablelm-2-1.6b": 1_644_515_328,
    "smollm3-3b": 3_075_098_624,
    "granite-3.1-8b": 8_170_848_256,
    "glm-4-9b": 9_400_279_040,
    "command-r7b": 8_027_834_368,
    "lfm2-1.2b": 1_170_340_608,
}
"""As published; of models that also see images, the language model's part."""
ACTIVE = {"mixtral-8x7b": 12.9e9, "qwen3-30b-a3b": 3.35e9, "qwen3-235b-a22b": 22.2e9, "deepseek-v3": 37.5e9}
"""Parameters that a token meets, as published."""


def test_the_shipped_shapes_give_the_published_parameter_counts() -> None:
    found = {name: known_dims(name) for name in known_models()}
    assert found.keys() == PARAMETERS.keys()
    assert len({dims.config for dims in found.values() if dims.counted}) >= 25
    for name, published in PARAMETERS.items():
        assert found[name].n_parameters == pytest.approx(published, rel=1e-4), name
        assert found[name].n_linear + found[name].n_stacked <= found[name].n_parameters
    for name, published in ACTIVE.items():
        assert found[name].n_active == pytest.approx(published, rel=0.01), name
    assert found["llama-3.1-8b"].n_active == found["llama-3.1-8b"].n_parameters


EXPERTS = {
    "mixtral": {"num_local_experts": 4, "num_hidden_layers": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2},
    "glm4_moe": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_neox": {},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "ctrl": {"n_embd": 64, "n_layer": 2, "n_head": 4, "dff": 96},
}
LEFT_OUT = {
    "glm4_moe": ["down_proj", "gate_proj", "up_proj"],
    "gpt_oss": ["experts.down_proj", "experts.gate_up_proj"],
}


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys", "ignore:fan_in_fan_out")
@pytest.mark.parametrize("kind", EXPERTS)
def test_all_linear_is_what_peft_makes_of_it_and_what_it_leaves_out_is_named(kind: str) -> None:
    from peft import LoraConfig, get_peft_model

    config = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "vocab_size": 400, "intermediate_size": 96, "moe_intermediate_size": 32, "pad_token_id": 0,
        "model_type": kind, **EXPERTS[kind],
    }  # fmt: skip
    dims, ours = ModelDims.of(config), attach_adapter(build_skeleton(config), AdapterSpec(rank=4), seed=0)
    settings = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = get_peft_model(build_skeleton(config), settings)
    shapes = [
        {name: each.shape for name, each in model.named_parameters() if each.requires_grad} for model in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]
    assert {each.device.type for each in ours.parameters()} == {"meta"}, "an adapter of experts can be as large as them"
    assert trainable_parameters(dims, AdapterSpec(rank=4)) == sum(each.numel() for each in shapes[1].values())
    top = trainable_parameters(dims, AdapterSpec(rank=4, layers=1))
    assert top == sum(each.numel() for name, each in shapes[1].items() if f".{dims.layers - 1}." in name)
    spec, cheap = (
        TrainSpec(base_model="x", adapter=AdapterSpec(rank=4), gradient_checkpointing=each) for each in (False, True)
    )
    experts = any(".experts." in name for name in shapes[0])
    assert trains_experts(dims, spec) is experts
    fewer = replace(dims, counted=replace(dims.counted, matrices=())) if dims.counted else dims
    kept = [
        estimate_memory(dims, each, max_tokens=1).activations - estimate_memory(fewer, each, max_tokens=1).activations
        for each in (spec, cheap)
    ]
    assert kept == ([2 * dims.n_stacked, 2 * dims.n_stacked // dims.layers] if experts else [0, 0])
    assert left_out(ours) == LEFT_OUT.get(kind, [])
    if kind == "mixtral":
        assert len(shapes[0]) == 56
        for setting in ({"dropout": 0.1}, {"dora": True}):
            with pytest.raises(ConfigError, match="stacked in one parameter"):
                trainable_parameters(dims, AdapterSpec(**setting))


def test_layers_that_differ_and_layers_that_peft_refuses_are_counted() -> None:
    gemma = ModelDims.of({"model_type": "gemma4_text", "num_hidden_layers": 6})
    assert (gemma.layers, gemma.heads, gemma.d_head) == (6, 8, 512)
    assert trainable_parameters(gemma, AdapterSpec(rank=4)) > 0
    config = {"model_type": "falcon_h1", "num_hidden_layers": 2}
    assert left_out(attach_adapter(build_skeleton(config), AdapterSpec(rank=4), seed=0)) == ["out_proj"]
    with pytest.raises(ConfigError, match=r"TG0181.*PEFT cannot put an adapter on this falcon_h1: .*'out_proj' is inc"):
        trainable_parameters(ModelDims.of(config), AdapterSpec(target_modules=("out_proj",)))


def test_an_adapter_reserves_no_memory_on_cards_that_it_is_not_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    read: list[object] = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_rng_state", lambda device: read.append(device) or torch.zeros(1))
    monkeypatch.setattr("torch.cuda.set_rng_state", lambda _state, _device: None)
    attach_adapter(build_skeleton({"model_type": "gpt2", "n_layer": 1}), AdapterSpec(), seed=0)
    assert read == []


@pytest.mark.parametrize("family", ["gemma-3-4b", "llama-3.2-1b", "mistral-nemo", "phi-4", "qwen2.5-0.5b", "qwen3-4b"])
def test_transformers_builds_the_same_weights(family: str) -> None:
    """Every parameter, and every one that LoRA adds, of a model of two layers without memory of its own."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = known_config(family) | {"num_hidden_layers": 2}
    dims = ModelDims.of(config)
    assert dims.counted is None, "computed, without torch"
    with torch.device("meta"):
        # The padding token of Phi-3's defaults lies outside a smaller vocabulary.
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config, pad_token_id=0))
        assert dims.n_parameters == sum(each.numel() for each in made.parameters())
        adapted = get_peft_model(made, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    added = sum(each.numel() for each in adapted.parameters() if each.requires_grad)
    assert trainable_parameters(dims, AdapterSpec(rank=8)) == added


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("meta-llama/Llama-2-7b-hf", "llama-2-7b"),
        ("LLAMA-2-7B", "llama-2-7b"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3-8B", "llama-3-8b"),
        ("meta-llama/Meta-Llama-3-70B-Instruct", "llama-3-70b"),
        ("google/gemma-3-27b-it", "gemma-3-27b"),
        ("mistralai/Mistral-Small-24B-Base-2501", "mistral-small-24b"),
        ("mistralai/Mistral-7B-v0.1", "mistral-7b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b-v0.3"),
        ("microsoft/Phi-4-mini-instruct", "phi-4-mini"),
        ("microsoft/Phi-4-reasoning", "phi-4"),
        ("Qwen/Qwen3-4B-Thinking-2507", "qwen3-4b"),
    ],
)
def test_a_model_is_found_under_common_spellings(spelling: str, name: str) -> None:
    assert known_dims(spelling) == known_dims(name)


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="TG0171") as error:
        known_dims("llama-2-7c")
    assert "llama-2-7b" in str(error.value.hint)


def test_neither_70b_llama_fits_one_40_gb_card() -> None:
    """The claim `70B on one 40 GB card` is marginal for Llama-2 and false for Llama-3.1."""
    for name, free_at_least in (("llama-2-70b", -0.1), ("llama-3.1-70b", -1.0)):
        spec = spec_for(name, rank=16, targets=QV, batch_size=1, checkpointing=True)
        fits = {fit.method: fit for fit in fit_methods(known_dims(name), spec, max_tokens=512)}
        assert free_at_least < fits["qlora"].cards["40 GB"] < MARGIN
        assert fits["lora"].smallest_card is fits["full"].smallest_card is None
    assert fits["qlora"].smallest_card == "48 GB" or fits["qlora"].cards["48 GB"] < MARGIN


def test_methods_need_less_memory_in_the_order_of_the_ladder() -> None:
    spec = spec_for("llama-3.1-8b", rank=16, targets=(), batch_size=1, checkpointing=True)
    full, lora, qlora = fit_methods(known_dims("llama-3.1-8b"), spec, max_tokens=512)
    assert (full.method, lora.method, qlora.method) == ("full", "lora", "qlora")
    assert full.estimate.total > lora.estimate.total > qlora.estimate.total
    assert (full.n_trainable, lora.n_trainable, qlora.n_trainable) == (8_030_261_248, 41_943_040, 41_943_040)
    assert qlora.smallest_card == "24 GB"
    for fit in (full, lora, qlora):
        assert list(fit.cards) == list(CARDS)
        assert list(fit.cards.values()) == sorted(fit.cards.values())  # more memory, more of it free
