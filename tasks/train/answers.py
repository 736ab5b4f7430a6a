"""Answers to validation tickets with the current weights, for metrics that are computed after training.

Prompts are the token ids of the validation examples, so no ticket text is needed.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from schemas.artifacts import ModelRef
from schemas.errors import TrainingError
from schemas.training import TrainSpec
from tasks.model.answer_engine import Engine, Item, answer_columns, stop_ids
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.decoding.plain_decoder import PlainDecoder
from tasks.storage.files import write_json

if TYPE_CHECKING:
    from torch import nn

FILE = "validation_answers.parquet"


class Answerer:
    """Greedy answers of a live model to the same tickets each time.

    Args:
        model: The model in training, read through its own forward: the fast decoder would regroup its weights.
        base: Gives the tokenizer and the context length.
        spec: Says how many tickets to answer, and how long an answer may be.
        validation: The split of a `DatasetRef`.
        folder: Gets one file per step; repeating a step overwrites its file.

    Raises:
        TrainingError: TG0411, no validation ticket leaves room for an answer.
    """

    def __init__(self, model: nn.Module, base: ModelRef, spec: TrainSpec, *, validation: Path, folder: Path) -> None:
        codec = ChatCodec.of(load_tokenizer(base), spec.format)
        self._engine = Engine(PlainDecoder(model), codec, stop_ids(codec, model), spec.validation_max_new_tokens)
        room = base.context_length - spec.validation_max_new_tokens
        self._items = choose_items(validation, spec.validation_items, longest=room)
        self._batch_size = spec.batch_size
        self._folder = folder

    def __call__(self, step: int) -> None:
        """Answer the tickets and write this step's answers."""
        answers = []
        for start in range(0, len(self._items), self._batch_size):
            answers += self._engine.answer(self._items[start : start + self._batch_size])
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(_file(self._folder, step), [asdict(answer) for answer in answers])


def collect_answers(folder: Path, steps: Sequence[int], out: Path) -> None:
    """Write `validation_answers.parquet` (step, item_id, text, n_new_tokens, finished, loss) of these steps."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"step": step} | row for step in steps for row in orjson.loads(_file(folder, step).read_bytes())]
    schema = pa.schema([pa.field("step", pa.int32(), nullable=False), *answer_columns()])
    rows.sort(key=lambda row: (row["step"], row["item_id"]))
    pq.write_table(pa.Table.from_pylist(rows, schema), out / FILE, compression="zstd")


def _file(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.json"


def choose_items(validation: Path, n_items: int, *, longest: int) -> list[Item]:
    """The tickets with the smallest hashes, longest prompts first; skips those without room for an answer.

    Raises:
        TrainingError: TG0411, none has room.
    """
    from datasets import load_from_disk

    items = [item for row in load_from_disk(str(validation)) if len((item := _item(row)).prompt) <= longest]
    if not items:
        raise TrainingError(
            f"no validation ticket leaves room for an answer: prompts may have at most {longest} tokens",
            code="TG0411",
            where="train.validation_items",
            hint="lower train.validation_max_new_tokens",
        )
    chosen = heapq.nsmallest(n_items, items, key=lambda item: hashlib.sha256(item.item_id.encode()).digest())
    return sorted(chosen, key=lambda item: (-len(item.prompt), item.item_id))


def no_validation_error() -> TrainingError:
    """What is wrong with a training that needs validation examples and has none."""
    return TrainingError(
        "early stopping and answers in training need validation examples, and there are none",
        code="TG0411",
        where="train.early_stopping, train.validation_items",
        hint="raise split.validation_fraction, or leave them out",
    )


def _item(row: dict[str, Any]) -> Item:
    """The last supervised answer of an example, and the tokens before it."""
    ids, mask = row["input_ids"], row["loss_mask"]
    start = len(mask) - mask[::-1].index(0) if 0 in mask else 0
    return Item(row["ticket_id"], ids[:start], ids[start:])
