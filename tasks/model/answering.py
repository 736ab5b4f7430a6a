"""Where batches of prompts are answered: in this process, or wherever else an engine can be loaded.

tasks/model/generate.py decides what is asked and keeps what comes back; tasks/cluster/answers.py answers on the actors
of a Ray cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.artifacts import ModelRef, TrainedRef
from schemas.evaluation import DecodingSpec
from schemas.training import Format
from tasks.model.answer_engine import Answer, Engine, Item
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec


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
    """One engine, one batch after the other."""

    def answers(self, job: AnswerJob, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Answer]]]:
        engine: Engine | None = None
        for start, items in batches:
            engine = engine or job.load()
            yield start, engine.answer(items)


IN_THIS_PROCESS = InThisProcess()
