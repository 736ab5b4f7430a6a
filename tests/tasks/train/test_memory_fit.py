"""Which method fits which card, computed from shapes alone."""

from __future__ import annotations

import pytest

from schemas.errors import ConfigError
from tasks.train.memory import CARDS, MARGIN, fit_methods, known_dims, known_models, spec_for

QV = ("q_proj", "v_proj")
PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "llama-3.1-8b": 8_030_261_248,
    "mistral-7b": 7_241_732_096,
    "qwen2.5-7b": 7_615_616_512,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-70b": 70_553_706_496,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "smollm2-135m": 134_515_008,
}


def test_the_shipped_shapes_give_the_published_parameter_counts() -> None:
    assert {name: known_dims(name).n_parameters for name in known_models()} == PARAMETERS


@pytest.mark.parametrize("name", ["meta-llama/Llama-2-7b-hf", "LLAMA-2-7B"])
def test_a_model_is_found_under_common_spellings(name: str) -> None:
    assert known_dims(name) == known_dims("llama-2-7b")


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
