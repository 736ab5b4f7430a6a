"""Loss of each train example under the model that was trained on it: what a model still gets wrong is worth a look.

Torch is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from schemas.artifacts import DatasetRef, ModelRef, TrainedRef
from tasks.model.perplexity import BATCH_TOKENS
from tasks.progress import Progress, silent
from tasks.tickets.encoded import read_encoded

if TYPE_CHECKING:
    from torch import nn


class TokenisedExample(NamedTuple):
    """One train example."""

    ticket_id: str
    ids: list[int]
    mask: list[int]
    """1 if the token carries loss."""


def example_losses(
    dataset: DatasetRef,
    *,
    model: ModelRef,
    trained: TrainedRef,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress = silent,
) -> dict[str, float]:
    """Return ticket_id -> mean nats per token that carries loss, without dropout; the largest of several examples.

    Reads each example once, a third of the work of an epoch. Examples without such a token are left out.

    Args:
        batch_tokens: Positions, padding included, that are read at once.

    Raises:
        StorageError: files of the model are missing or damaged.
        TrainingError: TG0420, a mean is not finite; TG0403, the model was trained on another base.
    """
    examples = [
        TokenisedExample(*row)
        for batch in read_encoded(dataset.root / "train")
        for row in zip(
            *(batch.column(name).to_pylist() for name in ("ticket_id", "input_ids", "loss_mask")), strict=True
        )
    ]
    examples = [each for each in examples if any(each.mask[1:])]
    if not examples:
        return {}
    from tasks.model.adapter import load_trained

    loaded = load_trained(model, trained, dtype=dtype)
    examples.sort(key=lambda each: (-len(each.ids), each.ticket_id))
    found: dict[str, float] = {}
    start = 0
    while start < len(examples):
        batch = examples[start : start + max(1, batch_tokens // len(examples[start].ids))]
        for each, mean in zip(batch, _means(loaded, batch), strict=True):
            found[each.ticket_id] = max(mean, found.get(each.ticket_id, mean))
        start += len(batch)
        progress(start, len(examples), "examples")
    return found


def _means(model: nn.Module, batch: Sequence[TokenisedExample]) -> list[float]:
    import torch

    from tasks.model.likelihood import means_per_row, token_nats

    device = next(model.parameters()).device
    longest = max(len(each.ids) for each in batch)
    ids = torch.tensor([each.ids + [0] * (longest - len(each.ids)) for each in batch], device=device)
    real = torch.tensor([[1] * len(each.ids) + [0] * (longest - len(each.ids)) for each in batch], device=device)
    # The first token has no predecessor that could predict it.
    scored = torch.tensor([each.mask[1:] + [0] * (longest - len(each.ids)) for each in batch], device=device).bool()
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=real, use_cache=False).logits[:, :-1]
        nats = token_nats(logits[scored], ids[:, 1:][scored], lambda given: given)
    return means_per_row(nats.cpu(), [sum(each.mask[1:]) for each in batch])
