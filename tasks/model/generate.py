"""Answers to prompts: batched greedy decoding, and beside each answer the loss of the reference answer.

It knows nothing of metrics and verdicts. `generate_answers` is a step of flows/assess.py, once per arm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from schemas.artifacts import ModelRef, Predictions, PromptSet, TrainedRef
from schemas.errors import DataError, TrainingError
from schemas.evaluation import DecodingSpec
from tasks.files import sha256_json, write_json
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn

    from tasks.model.decoder import Decoder, Ids, Reading


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


def generate_answers(
    *,
    prompts: PromptSet,
    model: ModelRef,
    decoding: DecodingSpec,
    trained: TrainedRef | None = None,
    out: Path,
    scratch: Path,
    progress: Progress = silent,
) -> Predictions:
    """Write `predictions.parquet` (see `Predictions`).

    Prompts are read in batches of similar length, composed by length and item_id alone; tokens that all prompts begin
    with are read once. Finished batches are kept in `scratch`, so that a killed run continues, with the same result:
    no batch depends on another. In float32 the tokens are those of transformers' `generate(do_sample=False)`.

    Raises:
        DataError: a prompt leaves no room for the answer in the model's context.
        TrainingError: out of memory, or a model whose outputs are not finite.
    """
    codec = ChatCodec.of(load_tokenizer(model), prompts.format)
    items = read_items(prompts, codec)
    _check_room(items, decoding.max_new_tokens, model.context_length)
    prefix = shared_prefix([item.prompt for item in items])
    common = sha256_json([model.digest, trained.digest if trained else None, decoding.model_dump(), prefix])
    answers: list[Answer] = []
    engine: Engine | None = None
    # The longest first: what does not fit into memory fails in the first minute.
    ordered = sorted(items, key=lambda item: (-len(item.prompt), item.item_id))
    with _threads(decoding.threads):
        for start in range(0, len(ordered), decoding.batch_size):
            batch = ordered[start : start + decoding.batch_size]
            kept = scratch / f"answers-{start:06}.json"
            key = sha256_json([common, [asdict(item) for item in batch]])
            done = _load(kept, key)
            if done is None:
                engine = engine or Engine.load(model, trained, decoding, codec, prefix)
                done = engine.answer(batch)
                write_json(kept, {"key": key, "answers": [asdict(answer) for answer in done]})
            answers += done
            progress(len(answers), len(items), "items")
    _write(answers, out)
    return Predictions(root=out, n_items=len(answers), n_new_tokens=sum(answer.n_new_tokens for answer in answers))


class Engine:
    """A loaded model that answers batches of items."""

    def __init__(self, decoder: Decoder, codec: ChatCodec, stops: frozenset[int], max_new_tokens: int) -> None:
        self.decoder = decoder
        self.codec = codec
        self.stops = stops
        self.max_new_tokens = max_new_tokens

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
        from tasks.model.decoder import open_decoder

        loaded = load_trained(model, trained, dtype=decoding.dtype, threads=decoding.threads)
        # no_grad, not inference_mode: regrouping assigns to the modules' weights.
        with torch.no_grad(), memory_told():
            decoder = open_decoder(loaded, prefix)
        return cls(decoder, codec, stop_ids(codec, loaded), decoding.max_new_tokens)

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """Answer the items as one batch, in their order.

        Raises:
            TrainingError: out of memory, or outputs that are not finite.
        """
        import torch

        with torch.inference_mode(), memory_told():
            longest = max(len(item.reference) for item in items)
            reading = self.decoder.read([item.prompt for item in items], room=max(self.max_new_tokens, longest))
            losses = reading.answer_losses([item.reference for item in items])
            tokens = greedy(reading, len(items), self.max_new_tokens, self.stops)
        return [self._answer(item, new, loss) for item, new, loss in zip(items, tokens, losses, strict=True)]

    def _answer(self, item: Item, tokens: list[int], loss: float) -> Answer:
        finished = tokens[-1] in self.stops
        said = tokens[:-1] if finished else tokens
        text = self.codec.tokenizer.decode(said, skip_special_tokens=True)
        return Answer(item.item_id, str(text), len(tokens), finished, loss)


def stop_ids(codec: ChatCodec, model: nn.Module) -> frozenset[int]:
    """Tokens that end an answer: of the template, of the tokenizer and of the model's own settings."""
    from tasks.model.decoder import language_model

    configured = getattr(language_model(model).generation_config, "eos_token_id", None)
    stops = {codec.end_id, codec.tokenizer.eos_token_id}
    stops |= set(configured) if isinstance(configured, list) else {configured}
    return frozenset(stops - {None})


def greedy(reading: Reading, n_rows: int, max_new_tokens: int, stops: frozenset[int]) -> list[list[int]]:
    """The most likely token, again and again, until a stop token (which is included) or `max_new_tokens`.

    Rows that have stopped are dropped at once, so that the last long answer does not make all others wait for it.
    """
    new: list[list[int]] = [[] for _ in range(n_rows)]
    rows = list(range(n_rows))
    while True:
        tokens = reading.next_logits().max(-1).indices  # the first of equal ones, as argmax, in a quarter of the time
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


def shared_prefix(prompts: Sequence[list[int]]) -> list[int]:
    """Tokens that all prompts begin with, at least one token of each left over.

    >>> shared_prefix([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3]])
    [1, 2]
    >>> shared_prefix([[7, 8]])
    [7]
    """
    first, last = min(prompts), max(prompts)
    limit = min(len(prompt) for prompt in prompts) - 1
    n_shared = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), limit)
    return first[: min(n_shared, limit)]


def read_items(prompts: PromptSet, codec: ChatCodec) -> list[Item]:
    """The prompts as ids, in the order of the file.

    Raises:
        DataError: there is none.
    """
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(prompts.root / "prompts.parquet").to_pylist()
    if not rows:
        raise DataError("there is no prompt to answer", code="TG0320", where=str(prompts.root))
    return [
        Item(
            row["item_id"],
            codec.prompt_ids(row["text"] if prompts.format == "completion" else orjson.loads(row["messages"])),
            codec.answer_ids(row["answer"]),
        )
        for row in rows
    ]


def _check_room(items: Sequence[Item], max_new_tokens: int, context_length: int) -> None:
    for item in items:
        needed = len(item.prompt) + max(max_new_tokens, len(item.reference))
        if needed > context_length:
            raise DataError(
                f"a prompt of {len(item.prompt)} tokens and its answer need {needed}; the model's context has "
                f"{context_length}",
                code="TG0321",
                where="evaluate",
                hint="lower evaluate.max_new_tokens or few_shot_examples, or filter long tickets",
            )


def _load(path: Path, key: str) -> list[Answer] | None:
    """A finished batch of an earlier attempt; None when there is none or it answers something else."""
    try:
        stored = orjson.loads(path.read_bytes())
        return [Answer(**answer) for answer in stored["answers"]] if stored["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(answers: Sequence[Answer], out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            pa.field("item_id", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("n_new_tokens", pa.int64(), nullable=False),
            pa.field("finished", pa.bool_(), nullable=False),
            pa.field("loss", pa.float64(), nullable=False),
        ]
    )
    rows = sorted((asdict(answer) for answer in answers), key=lambda row: str(row["item_id"]))
    pq.write_table(pa.Table.from_pylist(rows, schema), out / "predictions.parquet", compression="zstd")


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    """Use `wanted` CPU threads, and afterwards as many as before."""
    if wanted is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def memory_told() -> Iterator[None]:
    """Name what running out of memory raises inside the block."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise TrainingError(
            "not enough memory to answer a batch", code="TG0421", hint="lower evaluate.batch_size"
        ) from error
