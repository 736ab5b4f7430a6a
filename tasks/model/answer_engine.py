"""A loaded model that answers prompts: batched greedy decoding, and the loss of each reference answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from schemas.artifacts import LabelSet, ModelRef, TrainedRef
from schemas.errors import OutOfMemoryError
from schemas.evaluation import DecodingSpec
from tasks.model.chat_codec import ChatCodec
from tasks.model.label_likelihood import LabelFinder

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor, nn

    from tasks.model.decoding.decoder import Decoder, Ids, Reading


@dataclass(frozen=True)
class Item:
    """One prompt and its reference answer, as token ids."""

    item_id: str
    prompt: list[int]
    reference: list[int]


@dataclass(frozen=True)
class Answer:
    """One row of `predictions.parquet`."""

    item_id: str
    text: str
    n_new_tokens: int
    """Including the end token, if there is one."""
    finished: bool
    loss: float
    answer_log: float | None = None
    label_logs: list[float] | None = None
    """Both as of `Predictions`; no columns of the file without a set of labels."""


def answer_columns(*, with_labels: bool = False) -> list[pa.Field]:
    """The columns of an `Answer` in Parquet."""
    import pyarrow as pa

    types = (pa.string(), pa.string(), pa.int64(), pa.bool_(), pa.float64())
    columns = [pa.field(each.name, kind, nullable=False) for each, kind in zip(fields(Answer), types, strict=False)]
    extra = [pa.field("answer_log", pa.float64()), pa.field("label_logs", pa.list_(pa.float64()))]
    return [*columns, *extra] if with_labels else columns


class Engine:
    """A loaded model that answers batches of items."""

    def __init__(
        self,
        decoder: Decoder,
        codec: ChatCodec,
        stops: frozenset[int],
        max_new_tokens: int,
        labels: LabelSet | None = None,
    ) -> None:
        self.decoder = decoder
        self.codec = codec
        self.stops = stops
        self.max_new_tokens = max_new_tokens
        self._finder = None if labels is None else LabelFinder(labels, codec)
        self._cancelled = threading.Event()

    @classmethod
    def load(
        cls,
        model: ModelRef,
        trained: TrainedRef | None,
        decoding: DecodingSpec,
        codec: ChatCodec,
        prefix: Ids,
        labels: LabelSet | None = None,
    ) -> Engine:
        """Load base and adapter, and read the prefix that all prompts share.

        Args:
            labels: Whose likelihoods are wanted besides the answers.
        """
        import torch

        from tasks.model.adapter import load_trained
        from tasks.model.decoding.fused_decoder import open_decoder

        loaded = load_trained(model, trained, dtype=decoding.dtype, threads=decoding.threads)
        # no_grad, not inference_mode: regrouping assigns to the modules' weights.
        with torch.no_grad(), translate_memory_errors():
            decoder = open_decoder(loaded, prefix)
        return cls(decoder, codec, stop_ids(codec, loaded), decoding.max_new_tokens, labels)

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """Answer the items as one batch, in order.

        Raises:
            OutOfMemoryError: TG0405, not enough memory for a batch.
        """
        import torch

        with torch.inference_mode(), translate_memory_errors():
            longest = max(len(item.reference) for item in items)
            reading = self.decoder.read([item.prompt for item in items], room=max(self.max_new_tokens, longest))
            losses = reading.answer_losses([item.reference for item in items])
            kept = None if self._finder is None else KeptRows()
            tokens = greedy(
                reading,
                len(items),
                self.max_new_tokens,
                self.stops,
                is_cancelled=self._cancelled.is_set,
                kept=kept,
            )
            answers = [self._answer(item, new, loss) for item, new, loss in zip(items, tokens, losses, strict=True)]
            if self._finder is None or kept is None:
                return answers
            return self._with_labels(self._finder, items, tokens, answers, kept)

    def _with_labels(
        self,
        finder: LabelFinder,
        items: Sequence[Item],
        tokens: Sequence[list[int]],
        answers: Sequence[Answer],
        kept: KeptRows,
    ) -> list[Answer]:
        """Add the answers' own likelihoods, and those of all labels where one was written; the texts stay the same."""
        answers = [
            replace(answer, answer_log=mean) for answer, mean in zip(answers, kept.mean_logs(tokens), strict=True)
        ]
        places = {row: finder.find(tokens[row], answer.text) for row, answer in enumerate(answers)}
        found = {row: place for row, place in places.items() if place is not None}
        if not found:
            return answers
        logs = self.decoder.label_logs(
            [[*items[row].prompt, *tokens[row][: place.n_before]] for row, place in found.items()],
            [kept.memories[row] for row in found],
            [place.labels for place in found.values()],
        )
        for row, each in zip(found, logs, strict=True):
            answers[row] = replace(answers[row], label_logs=each)
        return answers

    def cancel(self) -> None:
        """End batches in other threads at their next token, with `CancelledError`; cannot be undone."""
        self._cancelled.set()

    def _answer(self, item: Item, tokens: list[int], loss: float) -> Answer:
        finished = tokens[-1] in self.stops
        answer = tokens[:-1] if finished else tokens
        text = self.codec.tokenizer.decode(answer, skip_special_tokens=True)
        return Answer(item.item_id, str(text), len(tokens), finished, loss)


def stop_ids(codec: ChatCodec, model: nn.Module) -> frozenset[int]:
    """Tokens that end an answer, from the template, the tokenizer and the model's own settings."""
    from tasks.model.decoding.decoder import language_model

    return stops_of(codec, getattr(language_model(model).generation_config, "eos_token_id", None))


def stops_of(codec: ChatCodec, configured: int | list[int] | None) -> frozenset[int]:
    """As `stop_ids`, from the `eos_token_id` of the model's generation settings."""
    stops = {codec.end_id, codec.tokenizer.eos_token_id}
    stops |= set(configured) if isinstance(configured, list) else {configured}
    return frozenset(stops - {None})


@dataclass
class KeptRows:
    """What `greedy` leaves of each row, besides its tokens."""

    memories: dict[int, Any] = field(default_factory=dict)
    """What the reading knows of the row when it stops."""
    logs: list[tuple[list[int], Tensor]] = field(default_factory=list)
    """Of each step: the rows, and the log-likelihoods of the tokens that they got."""

    def mean_logs(self, tokens: Sequence[Sequence[int]]) -> list[float]:
        """Mean log-likelihood of each row's tokens, nats."""
        sums = [0.0] * len(tokens)
        for rows, logs in self.logs:
            for row, log in zip(rows, logs.tolist(), strict=True):
                sums[row] += log
        return [total / len(own) for total, own in zip(sums, tokens, strict=True)]


class CancelledError(Exception):
    """The batch was cancelled."""


def greedy(
    reading: Reading,
    n_rows: int,
    max_new_tokens: int,
    stops: frozenset[int],
    *,
    is_cancelled: Callable[[], bool] = lambda: False,
    kept: KeptRows | None = None,
) -> list[list[int]]:
    """Generate the most likely token repeatedly, until a stop token (which is included) or `max_new_tokens`.

    Rows that have stopped leave the batch immediately, so one long answer does not slow down all others.

    Args:
        kept: Gets what is asked of the rows afterwards; the tokens stay the same.

    Raises:
        CancelledError: `is_cancelled` returned true.
    """
    new: list[list[int]] = [[] for _ in range(n_rows)]
    rows = list(range(n_rows))
    while True:
        if is_cancelled():
            raise CancelledError
        if kept is None:
            tokens = reading.next_tokens()
        else:
            tokens, logs = reading.next_scored()
            kept.logs.append((list(rows), logs))
        unfinished = []
        for place, token in enumerate(tokens.tolist()):
            own = new[rows[place]]
            own.append(token)
            if token not in stops and len(own) < max_new_tokens:
                unfinished.append(place)
            elif kept is not None:
                kept.memories[rows[place]] = reading.memory(place)
        if not unfinished:
            return new
        if len(unfinished) < len(rows):
            order = reading.keep(unfinished)
            rows = [rows[place] for place in order]
            tokens = tokens[order]
        reading.append(tokens)


@contextmanager
def translate_memory_errors() -> Iterator[None]:
    """Raise errors for lack of memory within the block as `OutOfMemoryError`."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise OutOfMemoryError(
            "not enough memory to answer a batch", code="TG0405", hint="lower evaluate.batch_size"
        ) from error
