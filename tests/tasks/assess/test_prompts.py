"""Each arm asks the same items in its own words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import EvalSet, Splits
from schemas.errors import ConfigError, DataError
from schemas.training import PromptSpec
from tasks.assess.prompts import build_prompts

PROMPT = PromptSpec(system="House.", user="{subject}: {body}", answer="{reply}")
ITEMS = [
    {"ticket_id": "i2", "subject": "Late", "body": "Where?", "reply": "Soon.", "answer": "Soon."},
    {"ticket_id": "i1", "subject": "Bill", "body": "Why?", "reply": "Sorry.", "answer": "Sorry."},
]
TRAIN = [
    {
        "ticket_id": f"t{i:03d}",
        "subject": "S",
        "body": f"body {i}",
        "reply": f"reply {i}",
        "category": f"c{max(0, i - 36)}",
    }
    for i in range(40)
]
"""37 tickets of c0 and one each of c1, c2 and c3."""


@pytest.fixture
def items(make_items: Callable[..., EvalSet]) -> EvalSet:
    return make_items(ITEMS)


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "prompts.parquet").to_pylist()
    return rows


def _messages(folder: Path) -> list[list[dict[str, str]]]:
    return [orjson.loads(row["messages"]) for row in _rows(folder)]


def test_a_baseline_is_given_the_labels_of_train(
    items: EvalSet, make_splits: Callable[..., Splits], tmp_path: Path
) -> None:
    build_prompts(
        items=items, arm="zero_shot", prompt=PROMPT, format="instruction", baseline_system="Of {labels}: {body}",
        splits=make_splits(train=TRAIN, test=[]), label="category", out=tmp_path,
    )  # fmt: skip
    assert _messages(tmp_path)[0][0] == {"role": "system", "content": "Of c0, c1, c2, c3: Why?"}


def test_the_tuned_arm_asks_as_training_did(items: EvalSet, tmp_path: Path) -> None:
    made = build_prompts(
        items=items, arm="tuned", prompt=PROMPT, format="instruction", baseline_system="Other.", out=tmp_path
    )
    assert (made.arm, made.format, made.n_items) == ("tuned", "instruction", 2)
    assert [(row["item_id"], row["answer"]) for row in _rows(tmp_path)] == [("i1", "Sorry."), ("i2", "Soon.")]
    assert _messages(tmp_path)[0] == [
        {"role": "system", "content": "House."},
        {"role": "user", "content": "Bill: Why?"},
    ]


@pytest.mark.parametrize(("baseline_system", "told"), [("Be fair.", "Be fair."), ("", "House.")])
def test_zero_shot_is_told_what_the_tuned_model_has_learnt(
    baseline_system: str, told: str, items: EvalSet, tmp_path: Path
) -> None:
    build_prompts(
        items=items, arm="zero_shot", prompt=PROMPT, format="instruction", baseline_system=baseline_system, out=tmp_path
    )
    assert _messages(tmp_path)[0][0] == {"role": "system", "content": told}


def test_few_shot_puts_answered_train_tickets_of_distinct_categories_before_the_item(
    items: EvalSet, make_splits: Callable[..., Splits], tmp_path: Path
) -> None:
    build_prompts(
        items=items, arm="few_shot", prompt=PROMPT, format="instruction", baseline_system="Be fair.",
        splits=make_splits(train=TRAIN, test=ITEMS_AS_TICKETS), n_examples=4, seed=3, out=tmp_path,
    )  # fmt: skip
    first, second = _messages(tmp_path)
    assert [turn["role"] for turn in first] == ["system", *["user", "assistant"] * 4, "user"]
    assert first[-1]["content"] == "Bill: Why?"
    assert first[:-1] == second[:-1]
    numbers = [int(turn["content"].split()[-1]) for turn in first if turn["role"] == "assistant"]
    assert sorted(max(0, number - 36) for number in numbers) == [0, 1, 2, 3]


ITEMS_AS_TICKETS = [{key: value for key, value in row.items() if key != "answer"} for row in ITEMS]


def test_the_examples_follow_the_seed(
    items: EvalSet, make_splits: Callable[..., Splits], new_folder: Callable[[], Path]
) -> None:
    folders = [new_folder() for _ in range(3)]
    for out, seed, train in zip(folders, (1, 1, 2), (TRAIN, TRAIN[::-1], TRAIN), strict=True):
        build_prompts(
            items=items, arm="few_shot", prompt=PROMPT, format="instruction",
            splits=make_splits(train=train), n_examples=3, seed=seed, out=out,
        )  # fmt: skip
    first, again, other = ((folder / "prompts.parquet").read_bytes() for folder in folders)
    assert first == again
    assert first != other


def test_an_example_is_never_a_held_out_item_or_its_question_or_without_an_answer(
    items: EvalSet, make_splits: Callable[..., Splits], tmp_path: Path
) -> None:
    train = [
        {"ticket_id": "i1", "subject": "X", "body": "x", "reply": "leak", "category": "a"},
        {"ticket_id": "t1", "subject": "LATE", "body": " where? ", "reply": "leak", "category": "b"},
        {"ticket_id": "t2", "subject": "Y", "body": "y", "reply": None, "category": "c"},
        {"ticket_id": "t3", "subject": "Z", "body": "z", "reply": "good", "category": "a"},
        {"ticket_id": "t4", "subject": "Z", "body": "z ", "reply": "good", "category": "b"},
    ]
    splits = make_splits(train=train)
    build_prompts(
        items=items, arm="few_shot", prompt=PROMPT, format="instruction", splits=splits, n_examples=1, out=tmp_path
    )
    assert [turn["content"] for turn in _messages(tmp_path)[0] if turn["role"] == "assistant"] == ["good"]
    with pytest.raises(DataError, match="need 2 examples, and only 1 train"):
        build_prompts(
            items=items, arm="few_shot", prompt=PROMPT, format="instruction", splits=splits, n_examples=2, out=tmp_path
        )


@pytest.mark.parametrize("arm", ["few_shot", "retrieval"])
def test_a_train_ticket_with_a_malformed_conversation_is_no_example(
    arm: Any, items: EvalSet, make_splits: Callable[..., Splits], tmp_path: Path
) -> None:
    malformed = [row | {"messages": '[{"role": "user", "content": "Where?"}]'} for row in TRAIN[1:]]
    build_prompts(
        items=items, arm=arm, prompt=PROMPT, format="instruction", splits=make_splits(train=[TRAIN[0], *malformed]),
        n_examples=1, out=tmp_path,
    )  # fmt: skip
    for messages in _messages(tmp_path):
        assert [turn["content"] for turn in messages if turn["role"] == "assistant"] == ["reply 0"]


def test_few_shot_without_train_is_a_configuration_error(items: EvalSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs the splits"):
        build_prompts(items=items, arm="few_shot", prompt=PROMPT, format="instruction", n_examples=3, out=tmp_path)


def test_completion_prompts_are_text_with_examples_as_blocks(
    items: EvalSet, make_splits: Callable[..., Splits], new_folder: Callable[[], Path]
) -> None:
    prompt = PromptSpec(user="Text: {body}\nIntent:", answer=" {category}")
    tuned, few = new_folder(), new_folder()
    build_prompts(items=items, arm="tuned", prompt=prompt, format="completion", out=tuned)
    assert _rows(tuned)[0]["text"] == "Text: Why?\nIntent:"
    build_prompts(
        items=items, arm="few_shot", prompt=prompt, format="completion", baseline_system="Name the intent.",
        splits=make_splits(train=TRAIN[:1]), n_examples=1, out=few,
    )  # fmt: skip
    assert _rows(few)[0]["text"] == "Name the intent.\n\nText: body 0\nIntent: c0\n\nText: Why?\nIntent:"


def test_question_and_answer_of_an_example_never_run_together(
    items: EvalSet, make_splits: Callable[..., Splits], tmp_path: Path
) -> None:
    prompt = PromptSpec(user="{body}", answer="{category}")
    build_prompts(
        items=items, arm="few_shot", prompt=prompt, format="completion", splits=make_splits(train=TRAIN[:1]),
        n_examples=1, out=tmp_path,
    )  # fmt: skip
    assert _rows(tmp_path)[0]["text"] == "body 0\nc0\n\nWhy?\n"


@pytest.mark.parametrize(("form", "answer"), [("instruction", "card"), ("completion", " card")])
def test_the_reference_answer_has_the_form_it_has_in_training(
    form: Any, answer: str, make_items: Callable[..., EvalSet], tmp_path: Path
) -> None:
    items = make_items([{"ticket_id": "a", "body": "b", "answer": " card"}])
    build_prompts(items=items, arm="tuned", prompt=PROMPT, format=form, out=tmp_path)
    assert _rows(tmp_path)[0]["answer"] == answer


def test_only_trained_models_and_rag_show_passages(make_items: Callable[..., EvalSet], tmp_path: Path) -> None:
    items = make_items(ITEMS)
    file = items.root / "items.parquet"
    table = pq.read_table(file)
    pq.write_table(table.append_column("passages", [["[a.md]\nSoon.", "[b.md]\nSorry."]]), file)

    def shown(name: str, arm: Any, prompt: PromptSpec) -> list[str]:
        (tmp_path / name).mkdir()
        build_prompts(items=items, arm=arm, prompt=prompt, format="instruction", out=tmp_path / name)
        return [turn["content"] for turn in _messages(tmp_path / name)[0]]

    own = PROMPT.model_copy(update={"system": "House.\n{passages}"})
    assert shown("tuned", "tuned", own) == ["House.\n[b.md]\nSorry.", "Bill: Why?"]
    assert shown("rag", "rag", own) == ["House.\n[b.md]\nSorry.", "Bill: Why?"]
    assert shown("before", "rag", PROMPT) == ["House.", "[b.md]\nSorry.\n\nBill: Why?"]
    assert shown("zero_shot", "zero_shot", own) == ["House.\n", "Bill: Why?"]

    talk = '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, '
    talk += '{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Sorry."}]'
    rows = pq.read_table(file)
    place = rows.column_names.index("messages")
    pq.write_table(rows.set_column(place, "messages", [[talk, talk]]), file)
    assert shown("talk", "rag", PROMPT) == ["House.", "Hi", "Hello", "[b.md]\nSorry.\n\nWhy?"]
