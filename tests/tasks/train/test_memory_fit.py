"""Which method fits which card, computed from shapes alone."""

import pytest

from schemas.errors import ConfigError
from schemas.training import AdapterSpec
from tasks.train.memory import CARDS, MARGIN, fit_methods, spec_for, trainable_parameters
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
}
"""As published; of models that also see images, the language model's part."""


def test_the_shipped_shapes_give_the_published_parameter_counts() -> None:
    assert {name: known_dims(name).n_parameters for name in known_models()} == PARAMETERS


@pytest.mark.parametrize("family", ["gemma-3-4b", "llama-3.2-1b", "mistral-nemo", "phi-4", "qwen2.5-0.5b", "qwen3-4b"])
def test_transformers_builds_the_same_weights(family: str) -> None:
    """Every parameter, and every one that LoRA adds, of a model of two layers without memory of its own."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = known_config(family) | {"num_hidden_layers": 2}
    dims = ModelDims.of(config)
    assert dims is not None
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
