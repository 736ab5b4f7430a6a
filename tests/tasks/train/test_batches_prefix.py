"""Computing a shared prefix once and dropping padding changes neither losses nor gradients."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from schemas.artifacts import ModelRef
from schemas.training import AdapterSpec, TrainSpec
from tasks.model.adapter import attach_adapter, open_for_training
from tasks.train.batches import Batch, shared_prefix
from tasks.train.fast.attention import pack
from tasks.train.fast.decoder import FastDecoder, is_fast
from tasks.train.forward import Losses, PlainModel, losses_of, plain_losses
from tests.support.trained import distance, shake

MakeSpec = Callable[..., TrainSpec]

FLOAT32 = 5e-6
"""Relative distance of gradients in float32: sums of a few hundred terms in another order, 2^-24 each."""


def _batch(lengths: Sequence[int], *, shared: int = 12, supervised: int = 3, seed: int = 0) -> Batch:
    """Examples of these lengths with shared first tokens; the last `supervised` tokens of each are supervised."""
    opening, own = random.Random(7), random.Random(seed)
    prefix = [opening.randrange(3, 270) for _ in range(shared)]
    ids = np.zeros((len(lengths), max(lengths)), dtype=np.int64)
    marked = np.zeros_like(ids, dtype=bool)
    for row, length in enumerate(lengths):
        # The first token after the prefix differs from row to row.
        tokens = [*prefix, row + 3, *(own.randrange(3, 270) for _ in range(length))][:length]
        ids[row, :length] = tokens
        marked[row, length - supervised : length] = supervised > 0
    rows, columns = np.nonzero(marked[:, 1:])
    return Batch(
        ids=torch.from_numpy(ids),
        rows=torch.from_numpy(rows),
        columns=torch.from_numpy(columns),
        targets=torch.from_numpy(ids[rows, columns + 1]),
        n_tokens=sum(lengths),
        ticket_ids=tuple(str(row) for row in range(len(lengths))),
    )


def _step(model: nn.Module, losses: Losses, batches: Sequence[Batch], *, share: bool) -> tuple[Tensor, Tensor]:
    """Losses and gradients of a step over all batches, as the engine computes it."""
    model.zero_grad()
    found = []
    with losses.sharing(batches if share else []):
        for batch in batches:
            each = losses(batch)
            each.sum().backward()  # type: ignore[no-untyped-call]
            found.append(each.detach())
    return torch.cat(found), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def _assert_equal(got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], tolerance: float = FLOAT32) -> None:
    torch.testing.assert_close(got[0], expected[0], rtol=tolerance, atol=tolerance)
    assert distance(got[1], expected[1]) < tolerance


ONE = [_batch([30, 22, 21, 40, 16])]
STEP = [_batch([30, 22, 40], seed=1), _batch([16, 17], seed=2)]


@pytest.mark.parametrize("batches", [ONE, STEP], ids=["one batch", "two batches"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"adapter": AdapterSpec(rank=4, target_modules=("q_proj", "down_proj"))},
        {"adapter": AdapterSpec(rank=4, layers=1)},
        {"gradient_checkpointing": True},
        {"method": "qlora"},
    ],
    ids=["all-linear", "some targets", "top layer", "recompute", "qlora"],
)
def test_the_fast_path_with_a_shared_prefix_matches_the_stock_model_without(
    tiny_model: ModelRef, make_spec: MakeSpec, batches: list[Batch], settings: dict[str, Any]
) -> None:
    spec = make_spec(**settings)
    model = shake(open_for_training(tiny_model, spec))
    fast = losses_of(model, dtype=torch.float32, recompute=spec.gradient_checkpointing)
    assert isinstance(fast, FastDecoder)
    assert shared_prefix(batches) == 12
    expected = _step(model, plain_losses(model, dtype=torch.float32, recompute=False), batches, share=False)
    _assert_equal(_step(model, fast, batches, share=True), expected)


@pytest.mark.parametrize("batches", [ONE, STEP], ids=["one batch", "two batches"])
def test_the_stock_model_shares_a_prefix_through_its_own_cache(
    tiny_model: ModelRef, make_spec: MakeSpec, batches: list[Batch]
) -> None:
    model = shake(open_for_training(tiny_model, make_spec()))
    plain = plain_losses(model, dtype=torch.float32, recompute=False)
    expected = _step(model, plain, batches, share=False)
    _assert_equal(_step(model, plain, batches, share=True), expected)


def _tiny(family: str) -> nn.Module:
    """A random model of a family that the fast path does not support."""
    import transformers

    common = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    more: dict[str, dict[str, Any]] = {
        "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0},
        "GPTNeoX": {"intermediate_size": 64},
        "Qwen3": {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8},
        "Bloom": {},
    }
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**common, **more[family])
    base = getattr(transformers, f"{family}ForCausalLM")(config)
    # With an initial deviation of 0.02, gradients are so small that most of their difference is rounding.
    for parameter in base.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, 0.1)
    whole: nn.Module = base
    return whole


@pytest.mark.parametrize("family", ["OPT", "GPTNeoX", "Qwen3", "Bloom"])
def test_other_families_share_a_prefix_whatever_their_positions(family: str) -> None:
    model = shake(attach_adapter(_tiny(family), AdapterSpec(rank=4), seed=0))  # type: ignore[arg-type]
    assert not is_fast(model)
    plain = PlainModel(model, dtype=torch.float32, recompute=False)
    assert plain.shares
    expected = _step(model, plain, STEP, share=False)
    _assert_equal(_step(model, plain, STEP, share=True), expected, 2e-5)


def test_full_tuning_shares_a_prefix(tiny_model: ModelRef, make_spec: MakeSpec) -> None:
    model = open_for_training(tiny_model, make_spec(method="full", learning_rate=1e-4))
    plain = losses_of(model, dtype=torch.float32, recompute=False)
    assert isinstance(plain, PlainModel)
    _assert_equal(_step(model, plain, STEP, share=True), _step(model, plain, STEP, share=False))


def test_a_model_with_a_sliding_window_shares_nothing() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = MistralConfig(vocab_size=300, num_hidden_layers=1, sliding_window=8, **shape)
    model = shake(attach_adapter(MistralForCausalLM(config), AdapterSpec(rank=4), seed=0))
    plain = PlainModel(model, dtype=torch.float32, recompute=False)
    assert not plain.shares
    one, other = (_step(model, plain, ONE, share=share) for share in (True, False))
    assert torch.equal(one[1], other[1])


def test_in_bfloat16_a_shared_prefix_is_as_close_to_float32_as_none(tiny_model: ModelRef, make_spec: MakeSpec) -> None:
    exact = shake(open_for_training(tiny_model, make_spec()))
    model = shake(open_for_training(tiny_model, make_spec(dtype="bfloat16")))
    wanted = _step(exact, plain_losses(exact, dtype=torch.float32, recompute=False), STEP, share=False)
    stock = _step(model, plain_losses(model, dtype=torch.bfloat16, recompute=False), STEP, share=False)
    for losses in (
        losses_of(model, dtype=torch.bfloat16, recompute=False),
        plain_losses(model, dtype=torch.bfloat16, recompute=False),
    ):
        shared = _step(model, losses, STEP, share=True)
        # Rounding to 8 bits depends on the order of sums, so their difference has no bound.
        for got, requested, peft in zip(shared, wanted, stock, strict=True):
            assert distance(got, requested) < 1.5 * distance(peft, requested) + 1e-3


@pytest.mark.parametrize("batches", [ONE, STEP], ids=["one batch", "two batches"])
def test_long_examples_switch_kernel_without_changing_the_numbers(
    tiny_model: ModelRef, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, batches: list[Batch]
) -> None:
    model = shake(open_for_training(tiny_model, make_spec()))
    fast = losses_of(model, dtype=torch.float32, recompute=False)
    expected = _step(model, fast, batches, share=True)
    monkeypatch.setattr("tasks.train.fast.attention.LONGEST_BLOCK", 20)
    _assert_equal(_step(model, fast, batches, share=True), expected)


def test_a_prefix_ends_before_the_first_token_that_predicts_a_supervised_one() -> None:
    assert shared_prefix([_batch([30, 22])]) == 12
    # Of thirteen tokens the last three are supervised, and the tenth predicts the first of them.
    assert shared_prefix([_batch([13, 22])]) == 9
    assert shared_prefix([_batch([30, 22]), _batch([25, 26], shared=10)]) == 10


def test_a_short_prefix_is_not_shared() -> None:
    assert shared_prefix([]) == 0
    assert shared_prefix([_batch([30])]) == 0
    assert shared_prefix([_batch([30, 22], shared=5)]) == 0
    assert shared_prefix([_batch([30, 22], supervised=0)]) == 0
    assert shared_prefix([_batch([30, 22]), _batch([22])]) == 12


def test_rows_end_at_the_last_supervised_position() -> None:
    batch = _batch([30, 22, 40])
    packing = pack(batch, n_prefix=12)
    # The last token of an example is only predicted.
    assert len(packing.source) == 12 + (29 - 12) + (21 - 12) + (39 - 12)
    assert batch.ids.flatten()[packing.source][packing.chosen].tolist() == batch.ids[batch.rows, batch.columns].tolist()
    assert [(block.n_examples, block.longest) for block in packing.blocks] == [(1, 12), (2, 27), (1, 9)]


def test_validation_shares_without_gradients(tiny_model: ModelRef, make_spec: MakeSpec) -> None:
    model = shake(open_for_training(tiny_model, make_spec())).eval()
    for losses in (
        losses_of(model, dtype=torch.float32, recompute=False),
        plain_losses(model, dtype=torch.float32, recompute=False),
    ):
        with torch.no_grad():
            alone = [losses(batch) for batch in STEP]
            with losses.sharing(STEP):
                shared = [losses(batch) for batch in STEP]
        torch.testing.assert_close(torch.cat(shared), torch.cat(alone), rtol=FLOAT32, atol=FLOAT32)


def test_with_dropout_a_step_shares_one_draw_and_is_reproducible(tiny_model: ModelRef, make_spec: MakeSpec) -> None:
    model = shake(open_for_training(tiny_model, make_spec(adapter=AdapterSpec(rank=4, dropout=0.3))))
    fast = losses_of(model, dtype=torch.float32, recompute=False)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(_step(model, fast, STEP, share=True))
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][1], found[2][1])
