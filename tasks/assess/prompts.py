"""Write the prompts of one arm for the held-out items: as trained, zero-shot, or with examples from train.

`tasks/model/generate.py` answers.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.artifacts import EvalSet, PromptSet, Splits
from schemas.errors import ConfigError, DataError
from schemas.template import PASSAGES
from schemas.training import Format, PromptSpec
from tasks.assess.items import ROW_CODES
from tasks.assess.retrieval import nearest_examples
from tasks.step import as_step
from tasks.tickets.draw import hash_rank
from tasks.tickets.prompts import Message, conversation_for, dump_messages, insert_labels, messages_for, render_text
from tasks.tickets.row_fault import is_row_fault

BLOCK_BREAK = "\n\n"
"""Between the blocks of a prompt of format completion."""


@as_step("prompts", libraries=("pyarrow",))
def build_prompts(
    out: Path,
    *,
    items: EvalSet,
    arm: Literal["tuned", "zero_shot", "few_shot", "retrieval", "rag"],
    prompt: PromptSpec,
    format: Format,
    baseline_system: str = "",
    splits: Splits | None = None,
    n_examples: int = 0,
    seed: int = 0,
    label: str | None = None,
) -> PromptSet:
    """Write `prompts.parquet`, one row per item, ordered by item_id.

    - `tuned`: exactly the prompt that training used.
    - `zero_shot`: the same, with `baseline_system`, if given, as the system message: it instructs the base model in
      what the tuned one has learnt, with the values of the column `label` in train for `{labels}`. Format completion
      has no system message; there it is the first block of the prompt.
    - `few_shot`: zero_shot with `n_examples` answered train tickets before the item, the same for every item, as user
      and assistant turns or as blocks of text. Chosen by hash of seed and ticket id, one per routing category in turn,
      never a ticket with the question of an item.
    - `retrieval`: the same with each item's most similar train tickets as examples, the nearest last.
    - `rag`: zero_shot with the passages of `evaluate.corpus` that fit the item: where the prompt has `{passages}`, else
      before the user's text. Of the other baselines, none shows passages.

    Raises:
        ConfigError: TG0160, few_shot, retrieval or `label` without splits, or no examples.
        DataError: TG0221, train has too few tickets that can be examples.
    """
    rows: list[dict[str, Any]] = pq.read_table(items.root / "items.parquet").sort_by("item_id").to_pylist()
    if arm == "tuned":
        spec = prompt
    else:
        labels = [] if label is None else _labels(label, splits)
        spec = _baseline_prompt(arm, prompt, insert_labels(baseline_system, labels))
    if arm not in ("tuned", "rag"):
        rows = [row | {PASSAGES: ""} for row in rows]
    examples: list[list[dict[str, Any]]] = [[] for _ in rows]
    shown = arm in ("few_shot", "retrieval")
    if shown:
        if splits is None or n_examples < 1:
            raise ConfigError(f"arm {arm} needs the splits and at least one example", code="TG0160")
        examples = _examples(arm, splits, prompt, n_examples, seed=seed, items=rows)
    if format == "instruction":
        name = "messages"
        shots = [[turn for row in each for turn in _without_system(conversation_for(spec, row))] for each in examples]
        texts = [
            dump_messages(_insert_shots(messages_for(spec, row), turns)) for row, turns in zip(rows, shots, strict=True)
        ]
        answers = [row["answer"].strip() for row in rows]  # as the assistant's turn is in training
    else:
        name = "text"
        answers = [row["answer"] for row in rows]  # a space between prompt and answer belongs to the answer
        blocks = [
            [_question_text(spec, row, apart=True) + render_text(spec.answer, row) for row in each] for each in examples
        ]
        texts = [
            BLOCK_BREAK.join([*_opening(arm, spec, row), *before, _question_text(spec, row, apart=shown)])
            for row, before in zip(rows, blocks, strict=True)
        ]
    columns = {"item_id": [row["item_id"] for row in rows], name: texts, "answer": answers}
    table = pa.table({column: pa.array(values, pa.string()) for column, values in columns.items()})
    pq.write_table(table, out / "prompts.parquet", compression="zstd")
    return PromptSet(root=out, arm=arm, format=format, n_items=len(rows))


def _baseline_prompt(arm: str, prompt: PromptSpec, baseline_system: str) -> PromptSpec:
    spec = prompt.model_copy(update={"system": baseline_system or prompt.system})
    if arm != "rag" or spec.shows_passages:
        return spec
    return spec.model_copy(update={"user": f"{{{PASSAGES}}}{BLOCK_BREAK}{spec.user}"})


def _labels(column: str, splits: Splits | None) -> list[str]:
    """The column's values in train, in alphabetical order."""
    if splits is None:
        raise ConfigError("the labels of train need the splits", code="TG0160")
    values = pq.read_table(splits.train, columns=[column])[column].unique().drop_null()
    return sorted(map(str, values.to_pylist()))


def _opening(arm: str, prompt: PromptSpec, row: dict[str, Any]) -> list[str]:
    return [] if arm == "tuned" or not prompt.system else [render_text(prompt.system, row)]


def _question_text(prompt: PromptSpec, row: dict[str, Any], *, apart: bool) -> str:
    """The item's text, with a line break after it if nothing else would separate question and answer."""
    text = render_text(prompt.user, row)
    touching = not text[-1:].isspace() and not prompt.answer[:1].isspace()
    return f"{text}\n" if apart and touching else text


def _without_system(turns: Sequence[Message]) -> list[Message]:
    return [turn for turn in turns if turn["role"] != "system"]


def _insert_shots(messages: list[Message], shots: list[Message]) -> list[Message]:
    system = [turn for turn in messages if turn["role"] == "system"]
    return [*system, *shots, *_without_system(messages)]


def _examples(
    arm: str, splits: Splits, prompt: PromptSpec, n_examples: int, *, seed: int, items: Sequence[dict[str, Any]]
) -> list[list[dict[str, Any]]]:
    """The examples of each item, in their order in the prompt."""
    if arm == "few_shot":
        return [_choose_examples(splits, prompt, n_examples, seed=seed, items=items)] * len(items)
    nearest = nearest_examples(
        items, splits, n_examples=n_examples, question=lambda row: _question(prompt, row),
        answered=lambda row: bool(_answer(prompt, row)),
    )  # fmt: skip
    return [nearest[row["item_id"]] for row in items]


def _choose_examples(
    splits: Splits, prompt: PromptSpec, n_examples: int, *, seed: int, items: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    used = {_question(prompt, row) for row in items}
    known = {row["item_id"] for row in items}
    chosen: list[dict[str, Any]] = []
    for row in _candidates(splits, seed=seed, batch=16 * n_examples):
        if row["ticket_id"] in known or not _answer(prompt, row) or (question := _question(prompt, row)) in used:
            continue
        used.add(question)
        chosen.append(row)
        if len(chosen) == n_examples:
            return chosen
    raise DataError(
        f"few-shot prompts need {n_examples} examples, and only {len(chosen)} train tickets are suitable",
        code="TG0221",
        where=str(splits.train),
        hint="lower evaluate.few_shot_examples, or remove few_shot from evaluate.arms",
    )


def _candidates(splits: Splits, *, seed: int, batch: int) -> Iterator[dict[str, Any]]:
    """Train rows in the order of preference: the first of each category by hash, then the second of each, ..."""
    table = pq.read_table(splits.train, columns=["ticket_id", "category"])
    ranked = sorted(
        zip(table.column("ticket_id").to_pylist(), table.column("category").to_pylist(), strict=True),
        key=lambda pair: hash_rank(pair[0], seed=seed),
    )
    seen: Counter[str | None] = Counter()
    preference: list[tuple[int, int, str]] = []
    for place, (ticket_id, category) in enumerate(ranked):
        preference.append((seen[category], place, ticket_id))
        seen[category] += 1
    heapq.heapify(preference)
    while preference:
        ids = [heapq.heappop(preference)[2] for _ in range(min(batch, len(preference)))]
        rows = pq.read_table(splits.train, filters=[("ticket_id", "in", ids)]).to_pylist()
        by_id: dict[str, dict[str, Any]] = {row["ticket_id"]: row for row in rows}
        yield from (by_id[ticket_id] for ticket_id in ids)


def _question(prompt: PromptSpec, row: dict[str, Any]) -> str:
    turns = _without_system(messages_for(prompt, row))
    return " ".join(" ".join(turn["content"] for turn in turns).split()).casefold()


def _answer(prompt: PromptSpec, row: dict[str, Any]) -> str:
    """The answer of a train ticket; empty for a ticket that encoding quarantines."""
    try:
        return conversation_for(prompt, row)[-1]["content"]
    except Exception as error:
        if not is_row_fault(error, ROW_CODES):
            raise
        return ""
