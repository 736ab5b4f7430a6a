"""Answers to prompts: batched greedy decoding, and beside each answer the loss of the reference answer.

Batches are answered in this process, or wherever else an engine can be loaded: tasks/cluster/answers.py answers on the
actors of a Ray cluster. It knows nothing of metrics and verdicts. `generate_answers` is a step of flows/assess.py, once
per arm; `mean_prompt_tokens` runs no model and is called by `flows/views/costs.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import orjson

from schemas.artifacts import ModelRef, Predictions, PromptSet, TrainedRef
from schemas.errors import DataError
from schemas.evaluation import DecodingSpec
from schemas.training import Format
from tasks.files import sha256_json, write_json
from tasks.model.answer_engine import Answer, Engine, Item
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.progress import Progress, silent
from tasks.step import BY_RUNNER, as_step

R = TypeVar("R")
T = TypeVar("T")
MOST_SIDE_BY_SIDE = 4
"""Batches that are answered at the same time at most: each has a cache of its own."""
Batch = tuple[int, Sequence[Item]]
"""Place of its first item in the order in which they are answered, and the items."""


@dataclass(frozen=True)
class AnswerJob:
    """Who answers, and how: all that an `Engine` is made of."""

    model: ModelRef
    trained: TrainedRef | None
    decoding: DecodingSpec
    format: Format
    prefix: tuple[int, ...]
    """Tokens that all prompts begin with."""
    threads: int
    """CPU threads that compute; equal bytes need an equal number."""
    n_batches: int
    """Of the whole, answered before or not: how threads are shared out depends on it, and bytes may depend on that."""

    def of_one_batch(self) -> AnswerJob:
        """The same for a process that answers one batch at a time: with the threads that a batch has here."""
        return replace(self, threads=self.threads // side_by_side(self.threads, self.n_batches), n_batches=1)

    def load(self) -> Engine:
        """The engine, here; this process computes with the job's threads from now on."""
        import torch

        torch.set_num_threads(self.threads)
        codec = ChatCodec.of(load_tokenizer(self.model), self.format)
        return Engine.load(self.model, self.trained, self.decoding, codec, list(self.prefix))


class Answering(Protocol):
    """Where batches are answered."""

    def answers(self, job: AnswerJob, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Answer]]]:
        """Each batch's place and its answers, as they come, in any order.

        Raises:
            TrainingError: out of memory, or a model whose outputs are not finite.
        """


class InThisProcess:
    """One engine; where it serves several threads, batches are answered side by side."""

    def answers(self, job: AnswerJob, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Answer]]]:
        if not batches:
            return
        engine = job.load()
        n = side_by_side(job.threads, job.n_batches) if engine.decoder.serves_threads else 1
        yield from each_batch(engine.answer, batches, n=n, threads=job.threads, give_up=engine.give_up)


def side_by_side(threads: int, n_batches: int) -> int:
    """How many batches are answered at the same time, each with an equal share of the threads.

    A token of one batch is many small products: two batches with a thread each wait for nobody, two threads of one
    batch for each other at every product (docs/decisions/0041).

    >>> side_by_side(2, 8), side_by_side(16, 8), side_by_side(6, 8), side_by_side(8, 1)
    (2, 4, 3, 1)
    """
    return max(n for n in range(1, min(MOST_SIDE_BY_SIDE, threads, n_batches) + 1) if threads % n == 0)


def each_batch(
    answer: Callable[[Sequence[T]], R],
    batches: Sequence[tuple[int, Sequence[T]]],
    *,
    n: int,
    threads: int,
    give_up: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, R]]:
    """Answer `n` batches at a time with `threads` in all; their places and answers, as they come.

    When one fails or nobody asks for more, `give_up` is called to end those that are being answered; what is done by
    then is given before the error is raised.
    """
    import torch

    if n == 1:
        for start, items in batches:
            yield start, answer(items)
        return
    pool = ThreadPoolExecutor(n, "answer", initializer=torch.set_num_threads, initargs=(threads // n,))
    error: BaseException | None = None
    try:
        waiting = {pool.submit(answer, items): start for start, items in batches}
        for done in as_completed(waiting):
            if done.cancelled():
                continue
            failed = done.exception()
            if failed is None:
                yield waiting[done], done.result()
            elif error is None:
                error = failed
                give_up()
                for each in waiting:
                    each.cancel()
        if error is not None:
            raise error
    finally:
        give_up()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


IN_THIS_PROCESS = InThisProcess()


@as_step(
    "answers",
    libraries=("torch", "transformers", "peft", "bitsandbytes"),
    context=("answering",),
    heavy=True,
    memory_gb=2.0,
)
def generate_answers(
    out: Path,
    *,
    prompts: PromptSet,
    model: ModelRef,
    decoding: DecodingSpec,
    trained: TrainedRef | None = None,
    scratch: Path = BY_RUNNER,
    answering: Answering = IN_THIS_PROCESS,
    progress: Progress = silent,
) -> Predictions:
    """Write `predictions.parquet` (see `Predictions`).

    Prompts are read in batches of similar length, composed by length and item_id alone; tokens that all prompts begin
    with are read once. Finished batches are kept in `scratch`, so that a killed run continues, with the same result:
    no batch depends on another, nor on where it is answered. In float32 the tokens are those of transformers'
    `generate(do_sample=False)`.

    Raises:
        DataError: a prompt leaves no room for the answer in the model's context.
        TrainingError: out of memory, or a model whose outputs are not finite.
    """
    codec = ChatCodec.of(load_tokenizer(model), prompts.format)
    items = read_items(prompts, codec)
    _check_room(items, decoding.max_new_tokens, model.context_length)
    prefix = shared_prefix([item.prompt for item in items])
    common = sha256_json([model.digest, trained.digest if trained else None, decoding.model_dump(), prefix])
    # The longest first: what does not fit into memory fails in the first minute.
    ordered = sorted(items, key=lambda item: (-len(item.prompt), item.item_id))
    starts = range(0, len(ordered), decoding.batch_size)
    batches: list[Batch] = [(start, ordered[start : start + decoding.batch_size]) for start in starts]
    keys = {start: sha256_json([common, [asdict(item) for item in batch]]) for start, batch in batches}
    done = {start: kept for start in starts if (kept := _load(_kept(scratch, start), keys[start])) is not None}
    answers = [answer for kept in done.values() for answer in kept]
    with _threads(decoding.threads) as threads:
        job = AnswerJob(model, trained, decoding, prompts.format, tuple(prefix), threads, len(batches))
        for start, new in answering.answers(job, [batch for batch in batches if batch[0] not in done]):
            told = [asdict(answer) for answer in new]
            write_json(_kept(scratch, start), {"key": keys[start], "answers": told})
            answers += new
            progress(len(answers), len(items), "items")
    _write(answers, out)
    return Predictions(root=out, n_items=len(answers), n_new_tokens=sum(answer.n_new_tokens for answer in answers))


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
        raise DataError("there is no prompt to answer", code="TG0308", where=str(prompts.root))
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
                code="TG0309",
                where="evaluate",
                hint="lower evaluate.max_new_tokens or few_shot_examples, or filter long tickets",
            )


def _kept(scratch: Path, start: int) -> Path:
    return scratch / f"answers-{start:06}.json"


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
def _threads(wanted: int | None) -> Iterator[int]:
    """Use `wanted` CPU threads, and afterwards as many as before; gives how many are used."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield wanted or before
    finally:
        torch.set_num_threads(before)


def mean_prompt_tokens(prompts: PromptSet, model: ModelRef) -> float:
    """Mean tokens of a prompt, with the template around it; the reference answer is not counted."""
    items = read_items(prompts, ChatCodec.of(load_tokenizer(model), prompts.format))
    return sum(len(item.prompt) for item in items) / len(items)
