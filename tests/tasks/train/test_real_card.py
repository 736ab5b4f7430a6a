"""What only a real card can prove: `make test-gpu`. Deselected elsewhere; nothing here has run yet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.artifacts import DatasetRef, ModelRef
from schemas.training import TrainSpec
from tasks.model.adapter import open_for_training
from tasks.model.decoding.fused_decoder import open_decoder
from tasks.model.decoding.plain_decoder import PlainDecoder
from tasks.model.merge import BOUNDS, measure_parity, merge_in_float32
from tasks.train.batches import Examples
from tasks.train.cards import cards_here
from tasks.train.engine import TrainingOutcome, train
from tasks.train.forward import losses_of, plain_losses
from tasks.train.job import ProgressLog
from tasks.train.launch import train_model
from tasks.train.loop import Checkpoints, Hooks, TrainData
from tests.support.trained import perturb, shake

MakeSpec = Callable[..., TrainSpec]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "qlora": {"method": "qlora"},
    "full": {"method": "full", "learning_rate": 1e-3, "allow_unusual_learning_rate": True},
}


def _train(model: torch.nn.Module, spec: TrainSpec, dataset: DatasetRef, folder: Path) -> TrainingOutcome:
    folder.mkdir(exist_ok=True)
    data = TrainData(dataset.root / "train", dataset.root / "validation")
    return train(
        model, spec, data=data, checkpoints=Checkpoints(folder, "key"), hooks=Hooks(ProgressLog(folder / "progress"))
    )


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_card_computes_the_losses_and_gradients_of_the_cpu(
    tiny_model: ModelRef, dataset: DatasetRef, make_spec: MakeSpec, method: str
) -> None:
    batch = Examples(dataset.root / "train").batch([0, 1, 2, 3, 4])
    found = []
    for device in (torch.device("cuda"), torch.device("cpu")):
        torch.manual_seed(0)
        model = open_for_training(tiny_model, make_spec(**METHODS[method]), device=torch.device("cpu"))
        model = shake(model).to(device)
        each = plain_losses(model, dtype=torch.float32, recompute=False)(batch)
        each.mean().backward()  # type: ignore[no-untyped-call]
        gradients = torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])
        found.append((each.detach().cpu(), gradients))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    assert float((found[0][1] - found[1][1]).norm() / found[1][1].norm()) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_a_training_in_the_cards_own_type_learns(
    tiny_model: ModelRef, dataset: DatasetRef, make_spec: MakeSpec, tmp_path: Path, method: str
) -> None:
    spec = make_spec(dtype="auto", epochs=4, **METHODS[method])
    outcome = _train(open_for_training(tiny_model, spec), spec, dataset, tmp_path / "scratch")
    losses = [float(row["loss"] or 0) for row in outcome.curve]
    assert outcome.finished
    assert losses[-1] < losses[0]


def test_no_batch_makes_the_cpu_wait(tiny_model: ModelRef, dataset: DatasetRef, make_spec: MakeSpec) -> None:
    model = open_for_training(tiny_model, make_spec(dtype="auto"))
    losses = losses_of(model, dtype=torch.bfloat16, recompute=False)
    batch = Examples(dataset.root / "train").batch([0, 1, 2])
    losses(batch).sum().backward()  # type: ignore[no-untyped-call]
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses(batch).sum().backward()  # type: ignore[no-untyped-call]
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_both_decoders_answer_alike(tiny_model: ModelRef, make_spec: MakeSpec) -> None:
    model = perturb(open_for_training(tiny_model, make_spec())).eval()
    prompts, answers = [[5, 6, 7, 8, 9], [5, 6, 7]], [[10, 11, 12], [13]]
    with torch.no_grad():
        plain = PlainDecoder(model).read(prompts, room=4)
        wanted, losses = plain.next_logits(), plain.answer_losses(answers)
        fused = open_decoder(model, [5, 6]).read(prompts, room=4)
    torch.testing.assert_close(fused.next_logits(), wanted, rtol=1e-3, atol=1e-3)
    assert fused.answer_losses(answers) == pytest.approx(losses, rel=1e-3)


def test_a_merge_answers_as_its_parts(tiny_model: ModelRef, make_spec: MakeSpec) -> None:
    parts, other = (perturb(open_for_training(tiny_model, make_spec())) for _ in range(2))
    whole = merge_in_float32(other)
    assert measure_parity(parts.eval(), whole.eval(), [[3, 4, 5, 6], [7, 8, 9]]).is_within(BOUNDS["float32"])


def test_the_driver_counts_the_cards_as_torch_does() -> None:
    cards = cards_here()
    assert len(cards) == torch.cuda.device_count()
    for number, card in enumerate(cards):
        free, total = torch.cuda.mem_get_info(number)
        assert abs(card.free - free) < 2**30
        assert card.free < total
    assert cards[0].bfloat16 == torch.cuda.is_bf16_supported(including_emulation=False)


@pytest.mark.parametrize("sharding", ["none", "full"])
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two CUDA devices")
def test_two_cards_train_as_one(
    tiny_model: ModelRef, dataset: DatasetRef, make_spec: MakeSpec, tmp_path: Path, sharding: str
) -> None:
    losses = []
    for name, settings in (
        ("one", {"batch_size": 8}),
        ("two", {"batch_size": 4, "processes": 2, "sharding": sharding}),
    ):
        out, scratch = tmp_path / name / "out", tmp_path / name / "scratch"
        out.mkdir(parents=True)
        scratch.mkdir()
        spec = make_spec(save_every=2, **METHODS["full"], **settings)
        trained = train_model(dataset=dataset, model=tiny_model, spec=spec, out=out, scratch=scratch)
        losses.append(trained.train_loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
