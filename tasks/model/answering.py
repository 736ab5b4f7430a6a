"""Where batches of prompts are answered: in this process, or wherever else an engine can be loaded.

tasks/model/generate.py decides what is asked and keeps what comes back; tasks/cluster/answers.py answers on the actors
of a Ray cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from schemas.artifacts import ModelRef, TrainedRef
from schemas.evaluation import DecodingSpec
from schemas.training import Format
from tasks.model.answer_engine import Answer, Engine, Item
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec

R = TypeVar("R")
T = TypeVar("T")
MOST_SIDE_BY_SIDE = 4
"""Batches that are answered at the same time at most: each has a cache of its own."""


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


Batch = tuple[int, Sequence[Item]]
"""Place of its first item in the order in which they are answered, and the items."""


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
