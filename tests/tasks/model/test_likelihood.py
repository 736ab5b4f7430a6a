"""Nats per token: the cross-entropy of torch, computed for a few logits at a time."""

import pytest
import torch

from schemas.errors import TrainingError
from tasks.model.likelihood import POSITIONS, means_per_row, token_nats


def test_nats_are_the_cross_entropy_across_slices() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 50, bias=False)
    states, targets = torch.randn(2 * POSITIONS + 3, 8), torch.randint(0, 50, (2 * POSITIONS + 3,))
    wanted = torch.nn.functional.cross_entropy(head(states), targets, reduction="none")
    assert torch.allclose(token_nats(states, targets, head), wanted, atol=1e-5)


def test_the_softmax_of_half_precision_logits_is_taken_in_float32() -> None:
    logits = torch.full((1, 40_000), 1.0, dtype=torch.bfloat16)
    (nats,) = token_nats(logits, torch.tensor([7]), lambda given: given)
    assert nats.item() == pytest.approx(torch.log(torch.tensor(40_000.0)).item(), rel=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_an_error(bad: float) -> None:
    with pytest.raises(TrainingError, match="TG0420"):
        means_per_row(torch.tensor([1.0, bad]), [1, 1])
