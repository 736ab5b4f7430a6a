"""What generation needs from a model: read prompts once, then give losses of answers and next tokens.

`fused_decoder.py` opens the one that fits a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

Ids = Sequence[int]


class Reading(Protocol):
    """A batch of prompts that the model has read; it grows by one token per row and step."""

    def next_logits(self) -> Tensor:
        """Logits (rows, vocabulary) of the token after the last one read."""

    def next_tokens(self) -> Tensor:
        """The most likely of these (rows,), the first of equal ones."""

    def next_scored(self) -> tuple[Tensor, Tensor]:
        """The same tokens, and their log-likelihoods (rows,) in nats."""

    def answer_losses(self, answers: Sequence[Ids]) -> list[float]:
        """Mean nats per token of each answer after its prompt; leaves the reading as it is.

        Only before the first `append`.
        """

    def append(self, tokens: Tensor) -> None:
        """Read one more token (rows,) per row."""

    def memory(self, row: int) -> Any:
        """What this reading knows of a row, for `Decoder.label_logs`; it stays as it is when the reading goes on."""

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Forget all other rows. Returns the new order of the kept rows, as indices into the old rows."""


class Decoder(Protocol):
    """A model, ready to read batches of prompts that begin with the same `prefix` tokens."""

    serves_threads: bool
    """May several threads read at the same time, each its own batch?"""

    def read(self, prompts: Sequence[Ids], *, room: int) -> Reading:
        """Read the prompts; at most `room` tokens per row can be appended or scored afterwards."""

    def label_logs(
        self, contexts: Sequence[Ids], memories: Sequence[Any], labels: Sequence[tuple[tuple[int, ...], ...]]
    ) -> list[list[float]]:
        """Log-likelihood in nats of each row's label tokens after its context.

        Args:
            contexts: Prompt and the beginning of the answer.
            memories: Of readings that have read at least the context less its last token.
        """


def language_model(model: nn.Module) -> Any:
    """The causal language model below PEFT's wrapper, its adapted layers in place."""
    return model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore[operator]


def has_plain_layers(model: nn.Module) -> bool:
    """Is every adapted or 4-bit linear layer `W x + scale * B A x`, computed in the model's own dtype?

    DoRA also scales rows, added tokens have trained embeddings, and 4-bit layers may compute in another dtype: then
    only the model's own forward is right, here and in training.
    """
    whole = language_model(model)
    dtype = whole.get_input_embeddings().weight.dtype
    return all(
        not getattr(module, "lora_magnitude_vector", None)
        and not getattr(module, "trainable_tokens_delta", None)
        and (
            not hasattr(getattr(module, "weight", None), "quant_state")
            or getattr(module, "compute_dtype", None) in (None, dtype)
        )
        for module in whole.modules()
    )


def left_padded(rows: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Ids (rows, longest) with zeros on the left, and the number of those per row (rows,)."""
    import torch

    longest = max(len(row) for row in rows)
    pads = [longest - len(row) for row in rows]
    ids = torch.tensor([[0] * pad + list(row) for pad, row in zip(pads, rows, strict=True)])
    return ids, torch.tensor(pads)
