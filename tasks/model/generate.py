"""Answers to prompts: batched greedy decoding, and for each answer the loss of the reference answer.

Batches are answered in this process, or wherever an engine can be loaded: tasks/cluster/answers.py uses actors of a Ray
cluster. `mean_prompt_tokens` runs no model.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

import orjson

from schemas.artifacts import LabelSet, ModelRef, Predictions, PromptSet, TrainedRef
from schemas.errors import DataError
from schemas.evaluation import DecodingSpec
from schemas.training import Format
from tasks.model.answer_engine import Answer, Engine, Item, answer_columns
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.progress import Progress, silent
from tasks.step import BY_RUNNER, as_step
from tasks.storage.failpoint import reach
from tasks.storage.files import sha256_json, write_json
from tasks.tickets.draw import group_ends, hash_rank

R = TypeVar("R")
T = TypeVar("T")
MAX_PARALLEL_BATCHES = 4
"""Maximum number of batches to answer in parallel: each has its own cache."""
Batch = tuple[int, Sequence[Item]]
"""Index of its first item in the order of answering, and the items."""


@dataclass(frozen=True)
class AnswerJob:
    """Everything that an `Engine` is loaded from."""

    model: ModelRef
    trained: TrainedRef | None
    decoding: DecodingSpec
    format: Format
    prefix: tuple[int, ...]
    """Tokens that all prompts start with."""
    threads: int
    """CPU threads for computing; equal bytes need an equal number."""
    n_batches: int
    """All batches, including those answered before: it decides threads per batch, and these may change bytes."""
    labels: LabelSet | None = None
    """Whose likelihoods are wanted besides the answers."""

    def of_one_batch(self) -> AnswerJob:
        """The same for a process that answers one batch at a time, with the threads that one batch gets here."""
        return replace(self, threads=self.threads // parallel_batches(self.threads, self.n_batches), n_batches=1)

    def load(self) -> Engine:
        """Load the engine here; this process uses the job's threads from now on."""
        import torch

        torch.set_num_threads(self.threads)
        codec = ChatCodec.of(load_tokenizer(self.model), self.format)
        return Engine.load(self.model, self.trained, self.decoding, codec, list(self.prefix), self.labels)


class BatchAnswering(Protocol):
    """Defines where batches are answered."""

    def answers(self, job: AnswerJob, batches: Sequence[Batch]) -> Generator[tuple[int, list[Answer]], None, None]:
        """Yield each batch's index and answers as they become available, in any order.

        Raises:
            TrainingError: out of memory, or the model's outputs are not finite.
        """


class InThisProcess:
    """One engine; if it supports several threads, it answers batches in parallel."""

    def answers(self, job: AnswerJob, batches: Sequence[Batch]) -> Generator[tuple[int, list[Answer]], None, None]:
        if not batches:
            return
        engine = job.load()
        n = parallel_batches(job.threads, job.n_batches) if engine.decoder.serves_threads else 1
        yield from each_batch(engine.answer, batches, n=n, threads=job.threads, cancel=engine.cancel)


def parallel_batches(threads: int, n_batches: int) -> int:
    """How many batches to answer in parallel, each with an equal share of the threads.

    A token of one batch takes many small products: two batches with one thread each need not wait, but two threads of
    one batch wait for each other at every product (docs/decisions/generation.md).

    >>> parallel_batches(2, 8), parallel_batches(16, 8), parallel_batches(6, 8), parallel_batches(8, 1)
    (2, 4, 3, 1)
    """
    return max(n for n in range(1, min(MAX_PARALLEL_BATCHES, threads, n_batches) + 1) if threads % n == 0)


def each_batch(
    answer: Callable[[Sequence[T]], R],
    batches: Sequence[tuple[int, Sequence[T]]],
    *,
    n: int,
    threads: int,
    cancel: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, R]]:
    """Answer `n` batches at a time with `threads` in total; yields their indices and answers as they become available.

    When one fails or the caller stops early, it calls `cancel` to end the running batches; finished batches are yielded
    before the error is raised.
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
                cancel()
                for each in waiting:
                    each.cancel()
        if error is not None:
            raise error
    finally:
        cancel()
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
    known_prompts: PromptSet | None = None,
    known: Predictions | None = None,
    labels: LabelSet | None = None,
    scratch: Path = BY_RUNNER,
    answering: BatchAnswering = IN_THIS_PROCESS,
    progress: Progress = silent,
) -> Predictions:
    """Write `predictions.parquet` (see `Predictions`).

    Batches contain prompts of similar length and depend only on length and item_id (`answer_in_groups`); tokens that
    all prompts start with are read once. Finished batches are kept in `scratch`, so a killed run continues with the
    same result: no batch depends on another, nor on where it is answered. In float32 the tokens are those of
    transformers' `generate(do_sample=False)`.

    Args:
        known_prompts: Prompts that this model has answered with this decoding; an equal one is not answered again.
        known: Those answers.
        labels: Also write the likelihood of the answer, and of each label where it wrote one; the texts stay the same.

    Raises:
        DataError: a prompt leaves no room for the answer in the model's context.
        TrainingError: out of memory, or the model's outputs are not finite.
    """
    task = AnswerTask(prompts, model, decoding, trained, labels)
    codec = ChatCodec.of(load_tokenizer(model), prompts.format)
    items = read_items(prompts, codec)
    answers: list[Answer] = []
    digest = None if labels is None else labels.digest
    if known_prompts is not None and known is not None and known.labels_digest == digest:
        answers = _answers_to_equal(items, read_items(known_prompts, codec), known)
    done = {answer.item_id for answer in answers}
    rest = [item for item in items if item.item_id not in done]
    if rest:
        *_, new = answer_in_groups(task, items=rest, scratch=scratch, answering=answering, progress=progress)
        answers += new
    n_cut = sum(len(item.reference) > decoding.max_new_tokens for item in items)
    written = write_answers(answers, out, with_labels=labels is not None)
    return written.model_copy(update={"n_replies_cut": n_cut, "labels_digest": digest})


def _answers_to_equal(items: Sequence[Item], known: Sequence[Item], answers: Predictions) -> list[Answer]:
    """Return the known answers to items with the same prompt and reference."""
    import pyarrow.parquet as pq

    before = {item.item_id: item for item in known}
    by_id = {row["item_id"]: row for row in pq.read_table(answers.root / "predictions.parquet").to_pylist()}
    equal = [item.item_id for item in items if before.get(item.item_id) == item and item.item_id in by_id]
    return [Answer(**by_id[name]) for name in equal]


@dataclass(frozen=True)
class AnswerTask:
    """The inputs of `generate_answers` that decide the answers."""

    prompts: PromptSet
    model: ModelRef
    decoding: DecodingSpec
    trained: TrainedRef | None = None
    labels: LabelSet | None = None


def answer_in_groups(
    task: AnswerTask,
    *,
    scratch: Path,
    items: Sequence[Item] | None = None,
    answering: BatchAnswering = IN_THIS_PROCESS,
    progress: Progress = silent,
    in_order: bool = False,
) -> Generator[list[Answer], None, None]:
    """Yield all answers so far, each time that one more group of items is answered. Closing it ends running batches.

    Groups are the first items by the hash of their ids, then the next (`tasks.tickets.draw.group_ends`). They do not
    depend on how many of them a caller looks at, so that the answers are the same to the last bit.

    Args:
        items: Of the prompts, those to answer; None for all.
        in_order: Answer one group after another. Else the longest prompts come first, so that a lack of memory shows in
            the first minute.
    """
    prompts, model, decoding, trained = task.prompts, task.model, task.decoding, task.trained
    if items is None:
        items = read_items(prompts, ChatCodec.of(load_tokenizer(model), prompts.format))
    check_room(items, decoding.max_new_tokens, model.context_length)
    prefix = shared_prefix([item.prompt for item in items])
    common = sha256_json([model.digest, trained.digest if trained else None, decoding.model_dump(), prefix])
    if task.labels is not None:
        common = sha256_json([common, task.labels.digest])
    ends = group_ends(len(items), batch_size=decoding.batch_size)
    batches = dict(_batches(items, ends, decoding.batch_size))
    keys = {start: sha256_json([common, [asdict(item) for item in batch]]) for start, batch in batches.items()}
    done = {start: kept for start in batches if (kept := _load(_kept(scratch, start), keys[start])) is not None}
    waiting = [batch for batch in batches.items() if batch[0] not in done]
    if not in_order:
        waiting.sort(key=lambda batch: -len(batch[1][0].prompt))
    with _threads(decoding.threads) as threads:
        job = AnswerJob(model, trained, decoding, prompts.format, tuple(prefix), threads, len(batches), task.labels)
        with closing(answering.answers(job, waiting)) as running:
            for end in ends:
                group = [start for start in batches if start < end]
                while not all(start in done for start in group):
                    start, new = next(running)
                    write_json(_kept(scratch, start), {"key": keys[start], "answers": [asdict(each) for each in new]})
                    reach("answers.kept")
                    done[start] = new
                    progress(sum(map(len, done.values())), len(items), "items")
                yield [answer for start in group for answer in done[start]]


def _batches(items: Sequence[Item], ends: Sequence[int], batch_size: int) -> Iterator[Batch]:
    """Yield the batches group by group, within a group the longest prompts first."""
    hashed = sorted(items, key=lambda item: hash_rank(item.item_id, seed=0))
    for begin, end in pairwise((0, *ends)):
        ordered = sorted(hashed[begin:end], key=lambda item: (-len(item.prompt), item.item_id))
        yield from ((begin + at, ordered[at : at + batch_size]) for at in range(0, end - begin, batch_size))


@dataclass(frozen=True)
class AnsweredBefore:
    """Takes the answers from predictions of the same model to the same prompts (see `BatchAnswering`)."""

    predictions: Path
    """`predictions.parquet`."""

    def answers(self, job: AnswerJob, batches: Sequence[Batch]) -> Generator[tuple[int, list[Answer]], None, None]:
        import pyarrow.parquet as pq

        by_id = {row["item_id"]: Answer(**row) for row in pq.read_table(self.predictions).to_pylist()}
        for start, items in batches:
            yield start, [by_id[item.item_id] for item in items]


def shared_prefix(prompts: Sequence[list[int]]) -> list[int]:
    """Tokens that all prompts start with, leaving at least one token of each prompt.

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
    """The prompts as token ids, in the order of the file.

    Raises:
        DataError: there are none.
    """
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(prompts.root / "prompts.parquet").to_pylist()
    if not rows:
        raise DataError("there are no prompts to answer", code="TG0308", where=str(prompts.root))
    return [
        Item(
            row["item_id"],
            codec.prompt_ids(row["text"] if prompts.format == "completion" else orjson.loads(row["messages"])),
            codec.answer_ids(row["answer"]),
        )
        for row in rows
    ]


def check_room(items: Sequence[Item], max_new_tokens: int, context_length: int) -> None:
    """Check that every prompt leaves room for the longest answer, and for its reference answer; all in tokens.

    Raises:
        DataError: TG0309, one does not.
    """
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
    """A finished batch of an earlier attempt; None if there is none or its prompts differ."""
    try:
        stored = orjson.loads(path.read_bytes())
        return [Answer(**answer) for answer in stored["answers"]] if stored["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_answers(answers: Sequence[Answer], out: Path, *, with_labels: bool = False) -> Predictions:
    """Write `predictions.parquet`, with the columns of likelihoods or without."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = sorted((asdict(answer) for answer in answers), key=lambda row: str(row["item_id"]))
    table = pa.Table.from_pylist(rows, pa.schema(answer_columns(with_labels=with_labels)))
    pq.write_table(table, out / "predictions.parquet", compression="zstd")
    return Predictions(root=out, n_items=len(answers), n_new_tokens=sum(answer.n_new_tokens for answer in answers))


@contextmanager
def _threads(wanted: int | None) -> Iterator[int]:
    """Use `wanted` CPU threads within the block; yields the number in use."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield wanted or before
    finally:
        torch.set_num_threads(before)


def mean_prompt_tokens(prompts: PromptSet, model: ModelRef) -> float:
    """Mean tokens of a prompt, including its template but not the reference answer."""
    items = read_items(prompts, ChatCodec.of(load_tokenizer(model), prompts.format))
    return sum(len(item.prompt) for item in items) / len(items)
