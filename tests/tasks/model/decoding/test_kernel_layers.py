"""Layers with our compiled kernels compute what torch computes: each kernel, whole models, any number of threads."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tasks.model.decoding.fused_decoder import FusedDecoder, KernelReading, TorchReading
from tasks.model.decoding.fused_layer import Norm
from tasks.model.decoding.kernel_layers import Flat, KernelNorm, States, flat, in_parts, largest_places, slices
from tasks.model.decoding.kernels import attend_columns
from tests.support.trained import shake

HALF_STEP = 2**-8
"""Largest relative difference between a number and the nearest bfloat16."""


def bf16(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def model_of(n_heads: int, n_kv: int, *, d: int = 16, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A random Llama with these heads; equal arguments give equal weights, rounded to bfloat16 in every dtype."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=200, hidden_size=96, intermediate_size=160, num_hidden_layers=3, num_attention_heads=n_heads,
        num_key_value_heads=n_kv, head_dim=d, max_position_embeddings=256, initializer_range=0.15,
        tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval().bfloat16().to(dtype)


def flats(*tensors: Tensor) -> list[Flat]:
    return [flat(tensor, tensor.dtype) for tensor in tensors]


def close(got: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(got.double(), wanted.double(), rtol=HALF_STEP, atol=1e-3)


# --- kernels


@pytest.mark.parametrize(("n_heads", "n_kv"), [(9, 3), (4, 4), (4, 1), (14, 2)])
@pytest.mark.parametrize("n_new", [1, 5])
@pytest.mark.parametrize("n_prefix", [0, 21])
def test_attention_matches_float64(n_heads: int, n_kv: int, n_new: int, n_prefix: int) -> None:
    n_rows, d, start, n_columns = 6, 64, 17, 32
    places, pads = torch.tensor([4, 0, 7, 2, 3, 6]), torch.tensor([0, 3, 17, 1, 0, 9])
    packed = bf16(n_rows, n_new, n_heads + 2 * n_kv, d, seed=1)
    angle = torch.rand(n_rows, n_new, d // 2, generator=torch.Generator().manual_seed(2)) * 6
    cos, sin = (torch.cat([part, part], -1).bfloat16() for part in (angle.cos(), angle.sin()))
    keys, values = bf16(8, n_kv, d, n_columns, seed=3), bf16(8, n_kv, n_columns, d, seed=4)
    n_before = (n_prefix + 15) // 16 * 16
    before_keys, before_values = bf16(1, n_kv, d, n_before, seed=5), bf16(1, n_kv, n_before, d, seed=6)
    old_keys, old_values = keys.double(), values.double()
    buffers = [torch.empty(n_heads // n_kv + 1, d)]
    buffers += [torch.empty(n_heads // n_kv, width) for width in (n_before, n_columns, d)]
    out = torch.empty(n_rows, n_new, n_heads, d, dtype=torch.bfloat16)
    attend_columns(
        *flats(packed, cos, sin, pads, places, keys, values, before_keys, before_values),
        n_prefix, start, 0, d**-0.5, *flats(*buffers), flat(out), 0, n_rows,
    )  # fmt: skip

    wide, half = packed.double(), d // 2
    swapped = torch.cat([-wide[..., half:], wide[..., :half]], -1)
    turned = wide * cos.double()[:, :, None] + swapped * sin.double()[:, :, None]
    q, new_keys = turned[:, :, :n_heads], turned[:, :, n_heads : n_heads + n_kv]
    assert close(keys[places, :, :, start : start + n_new], new_keys.permute(0, 2, 3, 1))
    assert torch.equal(values[places, :, start : start + n_new], packed[:, :, n_heads + n_kv :].transpose(1, 2))
    for r in range(n_rows):
        cache = int(places[r])
        assert torch.equal(keys[cache].double()[..., :start], old_keys[cache][..., :start]), "older keys are unchanged"
        assert torch.equal(values[cache].double()[:, :start], old_values[cache][:, :start])
        for c in range(n_new):
            seen = slice(int(pads[r]), start + c + 1)
            k = torch.cat([before_keys[0].double()[..., :n_prefix], keys[cache].double()[..., seen]], -1)
            v = torch.cat([before_values[0].double()[:, :n_prefix], values[cache].double()[:, seen]], 1)
            grouped = q[r, c].view(n_kv, -1, d)
            weights = torch.softmax(grouped @ k * d**-0.5, -1)
            assert close(out[r, c], (weights @ v).view(n_heads, d))


def test_norms_and_gates_match_torch() -> None:
    module = SimpleNamespace(weight=bf16(96, seed=7), variance_epsilon=1e-5)
    norm = Norm(module)
    x, more, both = bf16(7, 3, 96, seed=8), bf16(7, 3, 96, seed=9), bf16(7, 3, 320, seed=10) * 4
    states = States(x, 160)
    assert close(states.normed(KernelNorm(norm)), norm(x))
    total = x + more
    assert close(states.added_and_normed(more, KernelNorm(norm)), norm(total))
    assert torch.equal(x, total), "the sum is stored in place"
    both[0, 0, :7] = torch.tensor([-89.5, -100.0, -1000.0, 1000.0, float("inf"), float("nan"), 3e38])
    gate, up = both.chunk(2, -1)
    wanted = (functional.silu(gate) * up).double()
    assert torch.allclose(states.gated(both).double(), wanted, rtol=HALF_STEP, atol=1e-3, equal_nan=True)


def test_a_nan_stays_a_nan_whatever_its_sign_and_bits() -> None:
    bits = torch.tensor([0x7FC0, -0x40, 0x7FFF, -1, 0x7F81], dtype=torch.int16)
    x = torch.zeros(5, 1, 32, dtype=torch.bfloat16)
    x[:, 0, 3] = bits.view(torch.bfloat16)
    assert x[:, 0, 3].isnan().all()
    norm = KernelNorm(Norm(SimpleNamespace(weight=torch.ones(32, dtype=torch.bfloat16), variance_epsilon=1e-5)))
    assert States(x.clone(), 16).normed(norm).isnan().all(), "the norm of the whole row is NaN"
    assert States(x.clone(), 16).gated(x)[:, 0, 3].isnan().all()
    summed = States(torch.zeros_like(x), 16)
    summed.added_and_normed(x, norm)
    assert summed.hidden[:, 0, 3].isnan().all()
    with pytest.raises(ValueError, match=r"gates of 32 numbers where 2 \* 15 are expected"):
        States(x, 15).gated(x)


def test_argmax_takes_the_first_of_equal_values_and_nan_over_all() -> None:
    x = bf16(40, 3000, seed=12)
    x[3, 100] = x[3, 50] = 60.0
    x[4, 70], x[5] = float("nan"), -1.5
    x[6], x[6, 2999] = float("-inf"), -3e38
    x[7], x[7, 20], x[7, 30] = -1.0, -0.0, 0.0
    x[8, 9] = torch.tensor(-64, dtype=torch.int16).view(torch.bfloat16)  # a NaN with its sign bit set
    assert x[8, 9].isnan()
    assert torch.equal(largest_places(x), x.max(-1).indices)
    assert largest_places(x)[:9].tolist()[3:] == [50, 70, 0, 2999, 20, 9]


@pytest.mark.parametrize("spoilt", ["packed", "keys", "values"])
def test_a_nan_is_not_lost_in_attention(spoilt: str) -> None:
    packed, keys, values = bf16(2, 1, 5, 64), bf16(2, 1, 64, 16), bf16(2, 1, 16, 64)
    {"packed": packed[1, 0, 0], "keys": keys[1, 0, 3], "values": values[1, 0, 2]}[spoilt][2] = float("nan")
    ones, none = torch.ones(2, 1, 64).bfloat16(), torch.zeros(2, dtype=torch.int64)
    buffers = [torch.empty(4, 64), torch.empty(3, 0), torch.empty(3, 16), torch.empty(3, 64)]
    out = torch.empty(2, 1, 3, 64).bfloat16()
    prefix = torch.empty(1, 1, 64, 0).bfloat16(), torch.empty(1, 1, 0, 64).bfloat16()
    attend_columns(
        *flats(packed, ones, ones, none, torch.arange(2), keys, values, *prefix),
        0, 5, 0, 0.125, *flats(*buffers), flat(out), 0, 2,
    )  # fmt: skip
    assert out[1].isnan().any()
    assert not out[0].isnan().any()


def test_a_non_contiguous_tensor_or_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        flat(bf16(4, 4)[:, :2])
    with pytest.raises(ValueError, match=r"of torch\.bfloat16, not torch\.float32"):
        flat(torch.zeros(4))


def test_a_model_with_wider_norms_uses_torch() -> None:
    model = model_of(4, 4)
    model.model.layers[1].input_layernorm.float()
    with torch.no_grad():
        assert FusedDecoder(model, []).by_kernels is None
        assert FusedDecoder(model_of(4, 4), []).by_kernels is not None


def test_a_forked_child_has_its_own_threads() -> None:
    in_parts(lambda *_: None, [(0, 1), (1, 2)])
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(30)
            done: list[int] = []
            in_parts(lambda number, *_: done.append(number), [(0, 1), (1, 2)])
            os._exit(0 if sorted(done) == [0, 1] else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


# --- models

PROMPTS = [[1, 5, *range(20, 20 + n)] for n in (9, 30, 4, 17, 17, 60, 1, 25)]
ANSWERS = [[*range(100, 100 + n)] for n in (3, 1, 12, 7, 2, 40, 5, 5)]


def logits_and_losses(decoder: FusedDecoder) -> tuple[Tensor, list[float]]:
    """Logits after the prompts and after three more tokens, with rows removed in between; and losses of answers."""
    with torch.inference_mode():
        reading = decoder.read(PROMPTS, room=40)
        losses = reading.answer_losses(ANSWERS)
        logits = [reading.next_logits()]
        reading.append(torch.arange(30, 38))
        logits.append(reading.next_logits())
        order = reading.keep([1, 2, 4, 5, 7])
        reading.append(torch.arange(50, 58)[order])
        logits.append(reading.next_logits()[torch.tensor(order).argsort()])
        for number in range(20):  # past the end of a block
            reading.append(torch.full((5,), 60 + number))
        logits.append(reading.next_logits()[torch.tensor(order).argsort()])
    return torch.cat(logits).float(), losses


@pytest.mark.parametrize(("n_heads", "n_kv", "d"), [(6, 2, 16), (4, 4, 24), (4, 1, 64)])
@pytest.mark.parametrize("prefix", [[], [1, 5]])
def test_kernels_are_as_close_to_float32_as_torch(
    n_heads: int, n_kv: int, d: int, prefix: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        exact, exact_losses = logits_and_losses(FusedDecoder(model_of(n_heads, n_kv, d=d, dtype=torch.float32), prefix))
        by_kernels = FusedDecoder(model_of(n_heads, n_kv, d=d), prefix)
        assert isinstance(by_kernels.read([[1, 5, 6]], room=1), KernelReading)
        got, losses = logits_and_losses(by_kernels)
        monkeypatch.setattr("tasks.model.decoding.fused_reading.kernels_know", lambda *_: False)
        by_torch = FusedDecoder(model_of(n_heads, n_kv, d=d), prefix)
        assert isinstance(by_torch.read([[1, 5, 6]], room=1), TorchReading)
        rounded, rounded_losses = logits_and_losses(by_torch)
    scale = exact.std()
    error, usual = ((one - exact).abs().mean() / scale for one in (got, rounded))
    assert error < 0.02
    assert error < 1.2 * usual
    assert losses == pytest.approx(exact_losses, rel=0.03)
    assert rounded_losses == pytest.approx(exact_losses, rel=0.03)


def test_answers_do_not_depend_on_the_number_of_threads() -> None:
    x, before = bf16(4096, 96, seed=13), torch.get_num_threads()
    found = []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            assert len(slices(len(x))) == n_threads
            norm = KernelNorm(Norm(SimpleNamespace(weight=bf16(96, seed=7), variance_epsilon=1e-5)))
            states = States(x, 48)
            found.append((states.normed(norm), states.gated(x), largest_places(x)))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_an_error_in_a_slice_is_raised() -> None:
    def work(number: int, low: int, high: int) -> None:
        if number == 1:
            raise RuntimeError("part 1")

    with pytest.raises(RuntimeError, match="part 1"):
        in_parts(work, [(0, 1), (1, 2)])


def test_unmerged_adapters_are_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import LoraConfig, get_peft_model

    def adapted(dtype: torch.dtype) -> Any:
        model = get_peft_model(model_of(6, 2, dtype=dtype), LoraConfig(r=4, target_modules="all-linear"))
        return shake(model).eval()

    with torch.no_grad():
        plain, _ = logits_and_losses(FusedDecoder(model_of(6, 2), [1, 5]))
        got, _ = logits_and_losses(FusedDecoder(adapted(torch.bfloat16), [1, 5]))
        exact, _ = logits_and_losses(FusedDecoder(adapted(torch.float32), [1, 5]))
    assert (got - exact).abs().mean() < 0.03 * exact.std()
    assert (plain - exact).abs().mean() > 0.3 * exact.std(), "the adapter must change something"


def test_free_and_padding_columns_are_never_read() -> None:
    """The answer is the same bit for bit, whatever free and padding columns contain."""
    found = []
    for seed in (1, 2):
        keys, values = bf16(2, 1, 64, 32, seed=seed), bf16(2, 1, 32, 64, seed=seed)
        keys[..., 4:20], values[:, :, 4:20] = bf16(2, 1, 64, 16, seed=9), bf16(2, 1, 16, 64, seed=9)
        before = bf16(1, 1, 64, 16, seed=seed), bf16(1, 1, 16, 64, seed=seed)
        before[0][..., :3], before[1][:, :, :3] = bf16(1, 1, 64, 3, seed=8), bf16(1, 1, 3, 64, seed=8)
        buffers = [torch.empty(4, 64), torch.empty(3, 16), torch.empty(3, 32), torch.empty(3, 64)]
        out = torch.empty(2, 1, 3, 64).bfloat16()
        ones = torch.ones(2, 1, 64).bfloat16()
        attend_columns(
            *flats(bf16(2, 1, 5, 64, seed=4), ones, ones, torch.tensor([4, 4]), torch.arange(2), keys, values, *before),
            3, 20, 0, 0.125, *flats(*buffers), flat(out), 0, 2,
        )  # fmt: skip
        found.append(out.view(torch.int16).numpy())
    assert np.array_equal(found[0], found[1])
