"""What a training, an answer and a merge would do on a card: devices, types, and how often the CPU waits for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError

from schemas.artifacts import DatasetRef, ModelRef
from schemas.training import AdapterSpec, TrainSpec
from tasks.model.adapter import open_for_training, trainable_tensors
from tasks.model.decoding.decoder import Decoder
from tasks.model.decoding.fused_decoder import FusedDecoder, open_decoder
from tasks.model.decoding.plain_decoder import PlainDecoder
from tasks.model.merge import measure_parity, merge_in_float32
from tasks.train.engine import train
from tasks.train.job import ProgressLog
from tasks.train.loop import Checkpoints, Hooks, TrainData
from tests.support.fake_card import FakeCard, fake_card

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # it is the same for all
MakeSpec = Callable[..., TrainSpec]
CARD = torch.device("cuda", 0)
FULL: dict[str, Any] = {"method": "full", "learning_rate": 1e-4, "allow_unusual_learning_rate": True}
DORA: dict[str, Any] = {"adapter": AdapterSpec(rank=4, dora=True)}


def _train(model: torch.nn.Module, spec: TrainSpec, dataset: DatasetRef, folder: Path) -> int:
    folder.mkdir(exist_ok=True)
    data = TrainData(dataset.root / "train", dataset.root / "validation")
    hooks = Hooks(ProgressLog(folder / "progress"))
    return train(model, spec, data=data, checkpoints=Checkpoints(folder, "key"), hooks=hooks).n_steps


@pytest.mark.parametrize(
    ("settings", "bfloat16", "products"),
    [
        ({}, True, {torch.bfloat16}),
        ({}, False, {torch.float32}),
        (DORA, True, {torch.bfloat16}),
        ({"gradient_checkpointing": True}, True, {torch.bfloat16}),
        (FULL, True, {torch.bfloat16}),
        (FULL, False, {torch.float32}),
    ],
    ids=["lora", "lora, old card", "dora", "recomputed", "full", "full, old card"],
)
def test_a_training_stays_on_the_card_and_in_the_types_that_it_multiplies(
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: ModelRef,
    dataset: DatasetRef,
    make_spec: MakeSpec,
    tmp_path: Path,
    settings: dict[str, Any],
    bfloat16: bool,
    products: set[torch.dtype],
) -> None:
    spec = make_spec(dtype="auto", epochs=1, max_steps=1, **settings)
    with fake_card(monkeypatch, bfloat16=bfloat16) as card:
        model = open_for_training(tiny_model, spec)
        assert {each.device for each in model.parameters()} == {CARD}
        assert model.config._attn_implementation == "sdpa"  # type: ignore[union-attr]
        assert {each.dtype for each in trainable_tensors(model).values()} == {torch.float32}
        assert _train(model, spec, dataset, tmp_path) == 1
        assert all(each.dtype == torch.float32 for each in trainable_tensors(model).values())
    assert card.products == products


@pytest.mark.parametrize("settings", [{}, FULL], ids=["lora", "full"])
def test_the_cpu_waits_for_the_card_once_per_step_and_not_once_per_batch(
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: ModelRef,
    make_prefixed: Callable[..., DatasetRef],
    make_spec: MakeSpec,
    tmp_path: Path,
    settings: dict[str, Any],
) -> None:
    dataset = make_prefixed(n_train=16, n_validation=0, n_prefix=12)
    waits = []
    for accumulation in (1, 4):
        spec = make_spec(dtype="auto", max_steps=1, batch_size=4, gradient_accumulation_steps=accumulation, **settings)
        with fake_card(monkeypatch) as card:
            model = open_for_training(tiny_model, spec)
            before = card.waits
            _train(model, spec, dataset, tmp_path / str(accumulation))
            waits.append(card.waits - before)
    assert waits == [2, 2]  # for the loss, and for the gradient's norm


@pytest.mark.parametrize("adapter", [AdapterSpec(rank=4), AdapterSpec(rank=4, dora=True)], ids=["fused", "own forward"])
def test_answers_are_decoded_on_the_card(
    monkeypatch: pytest.MonkeyPatch, tiny_model: ModelRef, make_spec: MakeSpec, adapter: AdapterSpec
) -> None:
    with fake_card(monkeypatch) as card, torch.no_grad():
        model = open_for_training(tiny_model, make_spec(dtype="auto", adapter=adapter)).eval()
        decoder: Decoder = open_decoder(model, [5, 6])
        assert isinstance(decoder, PlainDecoder if adapter.dora else FusedDecoder)
        reading = decoder.read([[5, 6, 7, 8, 9], [5, 6, 7]], room=4)
        assert len(reading.answer_losses([[10, 11, 12], [13]])) == 2
        tokens = reading.next_tokens()
        reading.append(tokens)
        reading.keep([1])
        logits = reading.next_logits()
        assert (logits.device, logits.shape[0], logits.dtype) == (CARD, 1, torch.bfloat16)
    assert torch.bfloat16 in card.products


def test_a_merge_is_compared_on_the_card_in_float32(
    monkeypatch: pytest.MonkeyPatch, tiny_model: ModelRef, make_spec: MakeSpec
) -> None:
    with fake_card(monkeypatch) as card, torch.no_grad():
        parts = open_for_training(tiny_model, make_spec())
        whole = merge_in_float32(open_for_training(tiny_model, make_spec()))
        assert {each.device for each in whole.parameters()} == {CARD}
        assert measure_parity(parts, whole, [[3, 4, 5], [6, 7]]).n_positions == 5
    assert card.products == {torch.float32}


def test_the_fake_card_notices_what_a_real_one_would(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_card(monkeypatch) as card:
        there, here = torch.ones(2, 2, device="cuda"), torch.ones(2, 2)
        with pytest.raises(FakeTensorDeviceMismatchError):
            there @ here
        there @ there
        assert (card.waits, card.products) == (0, {torch.float32})
        assert float(there.sum()) == 1.0
        here.to("cuda")
        assert card.waits == 2
        assert isinstance(card, FakeCard)
