"""The fast path computes what transformers with PEFT computes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.artifacts import DatasetRef, ModelRef
from schemas.training import AdapterSpec, TrainSpec
from tasks.model.adapter import attach_adapter, open_for_training
from tasks.train.batches import Batch, Examples
from tasks.train.fast.decoder import FastDecoder, is_fast
from tasks.train.fast.kernels import gated_unit, rms_norm, token_losses
from tasks.train.forward import Losses, losses_of, plain_losses
from tests.support.trained import distance, shake

MakeSpec = Callable[..., TrainSpec]


@pytest.fixture
def batch(dataset: DatasetRef) -> Batch:
    """Five examples of different lengths."""
    return Examples(dataset.root / "train").batch([0, 1, 2, 3, 4])


def _gradients(model: nn.Module, losses: Losses, batch: Batch) -> tuple[Tensor, Tensor]:
    model.zero_grad()
    each = losses(batch)
    each.mean().backward()  # type: ignore[no-untyped-call]
    return each.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "lora"},
        {"method": "lora", "adapter": AdapterSpec(rank=4, target_modules=("q_proj", "v_proj", "down_proj"))},
        {"method": "lora", "adapter": AdapterSpec(rank=4, layers=1)},
        {"method": "lora", "gradient_checkpointing": True},
        {"method": "qlora"},
    ],
    ids=["all-linear", "some targets", "top layer", "recompute", "qlora"],
)
def test_losses_and_gradients_match_peft(
    tiny_model: ModelRef, make_spec: MakeSpec, batch: Batch, settings: dict[str, object]
) -> None:
    spec = make_spec(**settings)
    model = open_for_training(tiny_model, spec)
    shake(model)
    fast = losses_of(model, dtype=torch.float32, recompute=spec.gradient_checkpointing)
    assert isinstance(fast, FastDecoder)
    expected = _gradients(model, plain_losses(model, dtype=torch.float32, recompute=False), batch)
    got = _gradients(model, fast, batch)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-5, atol=1e-5)
    assert distance(got[1], expected[1]) < 1e-5


def test_in_bfloat16_the_fast_path_is_as_close_to_float32_as_peft(
    tiny_model: ModelRef, make_spec: MakeSpec, batch: Batch
) -> None:
    exact = open_for_training(tiny_model, make_spec())
    model = open_for_training(tiny_model, make_spec(dtype="bfloat16"))
    shake(exact)
    shake(model)
    wanted = _gradients(exact, plain_losses(exact, dtype=torch.float32, recompute=False), batch)
    peft = _gradients(model, plain_losses(model, dtype=torch.bfloat16, recompute=False), batch)
    fast = _gradients(model, losses_of(model, dtype=torch.bfloat16, recompute=False), batch)
    assert distance(fast[0], wanted[0]) < 1.5 * distance(peft[0], wanted[0]) + 1e-3
    assert distance(fast[1], wanted[1]) < 1.5 * distance(peft[1], wanted[1]) + 1e-3


def test_losses_at_supervised_positions_match_those_from_all_logits(
    tiny_model: ModelRef, make_spec: MakeSpec, batch: Batch
) -> None:
    model = open_for_training(tiny_model, make_spec())
    logits = model(input_ids=batch.ids).logits
    labels = torch.full_like(batch.ids, -100)
    labels[batch.rows, batch.columns + 1] = batch.targets
    mean = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
    for losses in (
        losses_of(model, dtype=torch.float32, recompute=False),
        plain_losses(model, dtype=torch.float32, recompute=False),
    ):
        torch.testing.assert_close(losses(batch).mean(), mean, rtol=1e-6, atol=1e-6)


def test_padding_changes_no_loss(tiny_model: ModelRef, make_spec: MakeSpec, dataset: DatasetRef) -> None:
    examples = Examples(dataset.root / "train")
    losses = losses_of(open_for_training(tiny_model, make_spec()), dtype=torch.float32, recompute=False)
    together = losses(examples.batch([0, 1, 2]))
    alone = torch.cat([losses(examples.batch([index])) for index in (0, 1, 2)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["qwen2", "mistral"])
def test_the_fast_path_is_exact_for_other_llama_shaped_families(family: str, batch: Batch) -> None:
    import transformers

    kinds = {"qwen2": ("Qwen2Config", "Qwen2ForCausalLM"), "mistral": ("MistralConfig", "MistralForCausalLM")}
    config_class, model_class = (getattr(transformers, name) for name in kinds[family])
    extra = {"sliding_window": None} if family == "mistral" else {}
    torch.manual_seed(0)
    config = config_class(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **extra,
    )
    base = model_class(config)
    for name, parameter in base.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    model = attach_adapter(base, AdapterSpec(rank=4), seed=0)
    shake(model)
    assert is_fast(model)
    expected = _gradients(model, plain_losses(model, dtype=torch.float32, recompute=False), batch)
    got = _gradients(model, losses_of(model, dtype=torch.float32, recompute=False), batch)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-5, atol=1e-5)
    assert distance(got[1], expected[1]) < 1e-5


def test_a_model_with_a_sliding_window_does_not_take_the_fast_path() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
    )
    assert not is_fast(attach_adapter(MistralForCausalLM(config), AdapterSpec(rank=4), seed=0))


def test_full_tuning_in_bfloat16_keeps_float32_weights_and_gradients(
    tiny_model: ModelRef, make_spec: MakeSpec, batch: Batch
) -> None:
    model = open_for_training(tiny_model, make_spec(method="full", learning_rate=1e-4, dtype="bfloat16"))
    losses_of(model, dtype=torch.bfloat16, recompute=True)(batch).mean().backward()  # type: ignore[no-untyped-call]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_fast_operations_have_the_gradients_of_plain_autograd() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(6, 8, dtype=torch.double, requires_grad=True), torch.rand(8, dtype=torch.double)
    y = torch.randn(6, 8, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(gated_unit, (x, y))
    wide = x.detach().float().requires_grad_()
    rms_norm(wide, weight.float(), 1e-6).square().sum().backward()  # type: ignore[no-untyped-call]
    plain = x.detach().float().requires_grad_()
    functional.rms_norm(plain, (8,), weight.float(), 1e-6).square().sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(wide.grad, plain.grad, rtol=1e-5, atol=1e-5)


def test_a_token_of_probability_zero_has_a_large_finite_loss() -> None:
    hidden = torch.tensor([[200.0, 0.0]], requires_grad=True)
    head = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    loss = token_losses(hidden, head, torch.tensor([1]))
    assert float(loss.detach()) == pytest.approx(400.0)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(hidden.grad, torch.tensor([[2.0, 0.0]]))
