"""Training examples as the model sees them, decoded for people: runs of text, each with or without loss.

It knows nothing of terminals. Called by `tunegate data preview`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from schemas.artifacts import DatasetRef, ModelRef
from tasks.model.base_model import load_tokenizer


@dataclass(frozen=True)
class Run:
    """Consecutive tokens that all carry loss, or all do not."""

    text: str
    """As the tokenizer writes them, including control tokens."""
    n_tokens: int
    carries_loss: bool


@dataclass(frozen=True)
class DecodedExample:
    """One training example."""

    ticket_id: str
    input_ids: tuple[int, ...]
    loss_mask: tuple[int, ...]
    runs: tuple[Run, ...]


def show_examples(*, dataset: DatasetRef, model: ModelRef, n_examples: int) -> list[DecodedExample]:
    """The first training examples in the order of ticket_id, decoded by the model's own tokenizer."""
    from datasets import load_from_disk

    tokenizer = load_tokenizer(model)
    train = load_from_disk(str(dataset.root / "train"))
    shown = []
    for row in train.select(range(min(n_examples, len(train)))):
        ids, mask = row["input_ids"], row["loss_mask"]
        runs = []
        for carries_loss, group in groupby(zip(ids, mask, strict=True), key=lambda pair: bool(pair[1])):
            part = [token for token, _ in group]
            text = tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            runs.append(Run(str(text), len(part), carries_loss))
        shown.append(DecodedExample(row["ticket_id"], tuple(ids), tuple(mask), tuple(runs)))
    return shown
