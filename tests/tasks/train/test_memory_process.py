"""The predicted peak memory of a training process, on each path, compared with real processes and real tensors."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from schemas.training import AdapterSpec, TrainSpec
from tasks.model.adapter import attach_adapter
from tasks.train import batches, memory, own_forward
from tasks.train.fast.decoder import is_fast
from tasks.train.forward import PlainModel, losses_at
from tasks.train.memory import Workload, check_memory, describe_path, forecast, predict_process
from tasks.train.model_shapes import ModelDims, known_dims
from tasks.train.own_forward import Step, StepBytes, slow_cause, step_bytes

STORED = 538_090_408
SMOLLM2 = Workload(known_dims("smollm2-135m"), stored=STORED, max_tokens=128, supervised_share=0.5)
TINY = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 400, "max_position_embeddings": 512,
    "pad_token_id": 0, "sliding_window": None,
}  # fmt: skip


def _spec(**settings: Any) -> TrainSpec:
    return TrainSpec.model_validate({"base_model": "x", "learning_rate": 1e-4, **settings})


PEAKS = [
    # method, batch, tokens, bytes per number, checkpointing, measured MB (SmolLM2-135M, one thread, Linux, torch 2.15)
    ("lora", 4, 128, 4, False, 2557),
    ("lora", 8, 256, 4, False, 5072),
    ("lora", 4, 128, 4, True, 1865),
    ("lora", 4, 128, 2, False, 1917),
    ("qlora", 4, 128, 4, False, 2539),
    ("qlora", 8, 256, 4, False, 5016),
    ("qlora", 8, 256, 2, False, 2991),
]
"""Peak resident set sizes over three steps with loss on half of the tokens."""


@pytest.mark.parametrize(("method", "batch", "tokens", "number", "checkpointing", "measured"), PEAKS)
def test_measured_peaks_of_the_fast_path_are_predicted_within_six_percent(
    method: str, batch: int, tokens: int, number: int, checkpointing: bool, measured: int
) -> None:
    spec = _spec(method=method, batch_size=batch, gradient_checkpointing=checkpointing)
    found = predict_process(replace(SMOLLM2, max_tokens=tokens), spec, number=number)
    assert found is not None
    assert found.total / 1e6 == pytest.approx(measured, rel=0.06)
    assert found.total == max(found.load, sum(v for k, v in found.parts().items() if k not in ("total", "load")))


QWEN3 = {
    "model_type": "qwen3", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 16, "head_dim": 64,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49_152, "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}  # fmt: skip
"""The Qwen3 of `make bench-memory`: 340 MB of weights."""


@pytest.mark.parametrize(
    ("settings", "measured"),
    [({}, 2560), ({"adapter": {"rank": 16, "dora": True}}, 3130), ({"method": "qlora"}, 2590)],
    ids=("lora", "dora", "qlora"),
)
def test_measured_peaks_of_layers_that_are_run_again_are_predicted_within_fifteen_percent(
    settings: dict[str, Any], measured: int
) -> None:
    """8 x 256 tokens in float32, the first one the mean of 2,469 and 2,649 MB in two runs."""
    spec = _spec(batch_size=8, gradient_checkpointing=True, **{"adapter": {"rank": 16}, **settings})
    dims = ModelDims.of(QWEN3)
    work = Workload(dims, stored=dims.n_parameters * 4, max_tokens=256, supervised_share=0.5)
    found = predict_process(work, spec, number=4)
    assert found is not None
    assert found.total / 1e6 == pytest.approx(measured, rel=0.15)


def test_the_constants_match_the_code_that_imports_torch() -> None:
    from tasks.train.fast import attention, kernels

    # Private, because each is one of many terms of a prediction.
    assert (memory._LOSS_ROWS, memory._LONGEST_BLOCK) == (kernels.LOSS_ROWS, attention.LONGEST_BLOCK)
    assert own_forward._STEADY_ROPE == batches._STEADY_ROPE


def test_only_adapted_layers_keep_activations() -> None:
    def activations(top: int | None) -> int:
        spec = _spec(adapter={"layers": top})
        found = predict_process(replace(SMOLLM2, supervised_share=0.0), spec, number=4)
        assert found is not None
        return found.activations

    logits = 49_152 * 3 * 4
    assert (activations(10) - logits) * 3 == pytest.approx(activations(None) - logits, rel=1e-6)


@pytest.mark.parametrize(
    ("changed", "settings"),
    [
        ({}, {}),
        ({"model_type": "mistral"}, {}),
        ({"model_type": "mistral", "sliding_window": 8}, {}),
        ({"model_type": "qwen2", "sliding_window": 8}, {}),
        ({"model_type": "qwen2", "sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0}, {}),
        ({"model_type": "qwen3"}, {}),
        ({"sliding_window": 8}, {}),
        ({"mlp_bias": True}, {}),
        ({"hidden_act": "gelu"}, {}),
        ({"attention_dropout": 0.1}, {}),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}}, {}),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}}, {}),
        ({}, {"method": "full"}),
        ({}, {"adapter": {"dora": True}}),
        ({}, {"n_rows": 2}),
    ],
)
def test_the_predicted_path_is_the_one_the_loaded_model_takes(
    changed: dict[str, Any], settings: dict[str, Any]
) -> None:
    n_rows = settings.get("n_rows", 0)
    config = {**TINY, **changed}
    spec = _spec(**{name: value for name, value in settings.items() if name != "n_rows"})
    model = _real(config, None if spec.method == "full" else spec.adapter, n_rows=n_rows)
    assert (slow_cause(config, spec, device="cpu", n_rows=n_rows) is None) is is_fast(model)
    assert slow_cause(config, spec, device="cuda") == "the fast path is for CPUs"


def _real(config: dict[str, Any], adapter: AdapterSpec | None, *, n_rows: int = 0) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    return (made if adapter is None else attach_adapter(made, adapter, seed=0, rows=range(n_rows))).train()


MIXTURE = {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
STEPS = {
    "lora": {},
    "recompute": {"recompute": True},
    "dora": {"adapter": AdapterSpec(rank=4, dora=True)},
    "full": {"adapter": None},
    "bfloat16": {"adapter": None, "dtype": "bfloat16"},
    "two batches": {"adapter": None, "n_batches": 2},
    "trained rows": {"n_rows": 3},
    "qwen3": {"model_type": "qwen3"},
    "mixtral": MIXTURE,
    "gemma3": {"model_type": "gemma3_text", "query_pre_attn_scalar": 16, "sliding_window": 8},
    "gpt_neox": {"model_type": "gpt_neox"},
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_without_values_holds_what_a_real_one_does(name: str) -> None:
    settings: dict[str, Any] = dict(STEPS[name])
    fields = {each: settings.pop(each) for each in list(settings) if each in TINY or each in MIXTURE or "attn" in each}
    config = {**TINY, **fields}
    wanted: dict[str, Any] = {"adapter": AdapterSpec(rank=4), "dtype": "float32", "recompute": False, **settings}
    step = Step(config=json.dumps(config), batch=2, tokens=24, n_columns=8, **wanted)
    plain = PlainModel(
        _real(config, step.adapter, n_rows=step.n_rows), dtype=getattr(torch, step.dtype), recompute=step.recompute,
        share=False,
    )  # fmt: skip
    ids, columns, places = torch.ones(2, 24, dtype=torch.int64), torch.arange(8), torch.zeros(16, dtype=torch.int64)
    with own_forward._live_tensors() as counter:
        for _ in range(step.n_batches):
            loss = losses_at(plain.logits(ids, columns), places, places, places).sum() / 16
            loss.backward()  # type: ignore[no-untyped-call]
            del loss
    found = step_bytes(step)
    assert found is not None
    assert found.gradients == counter.now[0]
    # Real kernels keep up to 8 % less of a step this small; `make bench-memory` measures real sizes.
    assert found.small == pytest.approx(counter.peak[0], rel=0.1)
    trained = sum(each.numel() * 4 for each in plain.model.parameters() if each.requires_grad)
    assert trained <= found.gradients < 1.2 * trained
    assert found.large == 0


def test_large_tensors_count_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(json.dumps(TINY), None, "float32", recompute=False, batch=2, tokens=24, n_columns=8)
    whole = own_forward._run(step)
    monkeypatch.setattr(own_forward, "LARGE_TENSOR", 400 * 64 * 4)
    cut = own_forward._run(step)
    # Embedding and head are equally large, and nothing else is.
    assert cut.large >= cut.large_gradients == 2 * 400 * 64 * 4
    assert (whole.large, whole.gradients) == (0, cut.gradients)
    assert cut.small < whole.small <= cut.small + cut.large


def test_each_setting_of_the_own_forward_counts() -> None:
    def peak(number: int = 4, **settings: Any) -> memory.ProcessMemory:
        work = Workload(ModelDims.of({**TINY, "model_type": "qwen3"}), 0, max_tokens=64, supervised_share=0.5)
        found = predict_process(work, _spec(batch_size=4, **settings), number=number)
        assert found is not None
        return found

    lora, full = peak(), peak(method="full", learning_rate=1e-5)
    assert peak(gradient_checkpointing=True).activations < lora.activations
    assert peak(adapter={"dora": True}).activations > 1.3 * lora.activations
    assert peak(number=2).activations < lora.activations
    twice = peak(method="full", learning_rate=1e-5, gradient_accumulation_steps=2)
    assert twice.activations > full.activations, "the second batch begins next to all gradients of the first"
    assert peak(method="qlora").activations >= lora.activations


def test_an_update_of_8_bit_moments_takes_copies_of_the_largest_weight() -> None:
    step = StepBytes(small=10, large=0, forward=10, gradients=7, large_gradients=0)
    tiny, spec = ModelDims.of(TINY), _spec(method="full", learning_rate=1e-5, optimizer="adamw_8bit")
    assert memory._with_update(tiny, spec, step) == (7 + 5 * 400 * 64 * 4, 0)
    assert memory._with_update(tiny, spec.model_copy(update={"optimizer": "adamw"}), step) == (10, 0)
    assert memory._with_update(SMOLLM2.dims, spec, step) == (10, 5 * 49_152 * 576 * 4)


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> Workload:
    """A base with a step that cannot be computed without values."""
    monkeypatch.setattr("tasks.train.memory.step_bytes", lambda _step: None)
    monkeypatch.setattr("tasks.train.memory.cards_here", tuple)
    return Workload(ModelDims.of({**TINY, "model_type": "qwen3"}), 10**15, max_tokens=64)


def test_what_cannot_be_predicted_is_not_refused(unknown: Workload) -> None:
    assert forecast(unknown, _spec()) is None
    check_memory(unknown, _spec())


def test_a_plan_says_the_path_its_cause_and_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.train.memory.cards_here", tuple)
    assert describe_path(SMOLLM2, _spec()).startswith(
        "the fast path; the model's own forward would take about 2.5 times"
    )
    described = describe_path(replace(SMOLLM2, dims=ModelDims.of({**TINY, "model_type": "qwen3"})), _spec())
    assert described.startswith("the model's own forward, at about 2.5 times the CPU time of the fast path: ")
    assert described.endswith("the fast path knows llama, mistral, qwen2, and the base is a qwen3")
