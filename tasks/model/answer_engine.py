"""A loaded model that answers: batched greedy decoding, and the loss of each reference answer.

It knows nothing of files and of who asks. Used by tasks/model/generate.py, by the checks of a candidate, by training
for its validation answers and by the endpoint.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.artifacts import ModelRef, TrainedRef
from schemas.errors import OutOfMemoryError
from schemas.evaluation import DecodingSpec
from tasks.model.chat_codec import ChatCodec

if TYPE_CHECKING:
    from torch import nn

    from tasks.model.decoding.decoder import Decoder, Ids, Reading


@dataclass(frozen=True)
class Item:
    """One prompt and its reference answer, as ids."""

    item_id: str
    prompt: list[int]
    reference: list[int]


@dataclass(frozen=True)
class Answer:
    """One row of `predictions.parquet`."""

    item_id: str
    text: str
    n_new_tokens: int
    """With the end token, where there is one."""
    finished: bool
    loss: float


class Engine:
    """A loaded model that answers batches of items."""

    def __init__(self, decoder: Decoder, codec: ChatCodec, stops: frozenset[int], max_new_tokens: int) -> None:
        self.decoder = decoder
        self.codec = codec
        self.stops = stops
        self.max_new_tokens = max_new_tokens
        self._given_up = threading.Event()

    @classmethod
    def load(
        cls,
        model: ModelRef,
        trained: TrainedRef | None,
        decoding: DecodingSpec,
        codec: ChatCodec,
        prefix: Ids,
    ) -> Engine:
        """Load base and adapter and read the tokens that all prompts begin with."""
        import torch

        from tasks.model.adapter import load_trained
        from tasks.model.decoding.open_decoder import open_decoder

        loaded = load_trained(model, trained, dtype=decoding.dtype, threads=decoding.threads)
        # no_grad, not inference_mode: regrouping assigns to the modules' weights.
        with torch.no_grad(), memory_told():
            decoder = open_decoder(loaded, prefix)
        return cls(decoder, codec, stop_ids(codec, loaded), decoding.max_new_tokens)

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """Answer the items as one batch, in their order.

        Raises:
            OutOfMemoryError: TG0405, not enough memory for a batch.
        """
        import torch

        with torch.inference_mode(), memory_told():
            longest = max(len(item.reference) for item in items)
            reading = self.decoder.read([item.prompt for item in items], room=max(self.max_new_tokens, longest))
            losses = reading.answer_losses([item.reference for item in items])
            tokens = greedy(reading, len(items), self.max_new_tokens, self.stops, given_up=self._given_up.is_set)
        return [self._answer(item, new, loss) for item, new, loss in zip(items, tokens, losses, strict=True)]

    def give_up(self) -> None:
        """Let batches that other threads are answering end at their next token, with `GivenUpError`; for good."""
        self._given_up.set()

    def _answer(self, item: Item, tokens: list[int], loss: float) -> Answer:
        finished = tokens[-1] in self.stops
        said = tokens[:-1] if finished else tokens
        text = self.codec.tokenizer.decode(said, skip_special_tokens=True)
        return Answer(item.item_id, str(text), len(tokens), finished, loss)


def stop_ids(codec: ChatCodec, model: nn.Module) -> frozenset[int]:
    """Tokens that end an answer: of the template, of the tokenizer and of the model's own settings."""
    from tasks.model.decoding.decoder import language_model

    configured = getattr(language_model(model).generation_config, "eos_token_id", None)
    stops = {codec.end_id, codec.tokenizer.eos_token_id}
    stops |= set(configured) if isinstance(configured, list) else {configured}
    return frozenset(stops - {None})


class GivenUpError(Exception):
    """Nobody wants the answers of this batch any more."""


def greedy(
    reading: Reading,
    n_rows: int,
    max_new_tokens: int,
    stops: frozenset[int],
    *,
    given_up: Callable[[], bool] = lambda: False,
) -> list[list[int]]:
    """The most likely token, again and again, until a stop token (which is included) or `max_new_tokens`.

    Rows that have stopped are dropped at once, so that the last long answer does not make all others wait for it.
    """
    new: list[list[int]] = [[] for _ in range(n_rows)]
    rows = list(range(n_rows))
    while True:
        if given_up():
            raise GivenUpError
        tokens = reading.next_tokens()
        going = []
        for place, token in enumerate(tokens.tolist()):
            own = new[rows[place]]
            own.append(token)
            if token not in stops and len(own) < max_new_tokens:
                going.append(place)
        if not going:
            return new
        if len(going) < len(rows):
            order = reading.keep(going)
            rows = [rows[place] for place in order]
            tokens = tokens[order]
        reading.append(tokens)


@contextmanager
def memory_told() -> Iterator[None]:
    """Name what running out of memory raises inside the block."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise OutOfMemoryError(
            "not enough memory to answer a batch", code="TG0405", hint="lower evaluate.batch_size"
        ) from error
