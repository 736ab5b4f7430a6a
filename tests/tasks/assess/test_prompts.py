"""Each arm asks the same items in its own words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import EvalSet, PromptSet, Splits
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


Build = Callable[..., PromptSet]


@pytest.fixture
def build(items: EvalSet, new_folder: Callable[[], Path]) -> Build:
    """Build the prompts of an arm for both items."""

    def run(arm: str, **options: Any) -> PromptSet:
        usual = {"items": items, "prompt": PROMPT, "format": "instruction", "out": new_folder()}
        return build_prompts(arm=arm, **(usual | options))

    return run


def _rows(made: PromptSet) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(made.root / "prompts.parquet").to_pylist()
    return rows


def _messages(made: PromptSet) -> list[list[dict[str, str]]]:
    return [orjson.loads(row["messages"]) for row in _rows(made)]


def _examples(messages: list[dict[str, str]]) -> list[str]:
    """The answers of the examples."""
    return [turn["content"] for turn in messages if turn["role"] == "assistant"]


def test_a_baseline_is_given_the_labels_of_train(build: Build, make_splits: Callable[..., Splits]) -> None:
    splits = make_splits(train=TRAIN, test=[])
    made = build("zero_shot", baseline_system="Of {labels}: {body}", splits=splits, label="category")
    assert _messages(made)[0][0] == {"role": "system", "content": "Of c0, c1, c2, c3: Why?"}


def test_the_tuned_arm_asks_as_training_did(build: Build) -> None:
    made = build("tuned", baseline_system="Other.")
    assert (made.arm, made.format, made.n_items) == ("tuned", "instruction", 2)
    assert [(row["item_id"], row["answer"]) for row in _rows(made)] == [("i1", "Sorry."), ("i2", "Soon.")]
    assert _messages(made)[0] == [{"role": "system", "content": "House."}, {"role": "user", "content": "Bill: Why?"}]


@pytest.mark.parametrize(("baseline_system", "expected"), [("Be fair.", "Be fair."), ("", "House.")])
def test_the_prompt_of_zero_shot_says_what_the_tuned_model_has_learnt(
    baseline_system: str, expected: str, build: Build
) -> None:
    made = build("zero_shot", baseline_system=baseline_system)
    assert _messages(made)[0][0] == {"role": "system", "content": expected}


def test_few_shot_puts_answered_train_tickets_of_distinct_categories_before_the_item(
    build: Build, make_splits: Callable[..., Splits]
) -> None:
    splits = make_splits(train=TRAIN, test=ITEMS_AS_TICKETS)
    first, second = _messages(build("few_shot", baseline_system="Be fair.", splits=splits, n_examples=4, seed=3))
    assert [turn["role"] for turn in first] == ["system", *["user", "assistant"] * 4, "user"]
    assert first[-1]["content"] == "Bill: Why?"
    assert first[:-1] == second[:-1]
    numbers = [int(answer.split()[-1]) for answer in _examples(first)]
    assert sorted(max(0, number - 36) for number in numbers) == [0, 1, 2, 3]


ITEMS_AS_TICKETS = [{key: value for key, value in row.items() if key != "answer"} for row in ITEMS]


def test_the_examples_follow_the_seed(build: Build, make_splits: Callable[..., Splits]) -> None:
    def written(seed: int, train: list[dict[str, Any]]) -> bytes:
        made = build("few_shot", splits=make_splits(train=train), n_examples=3, seed=seed)
        return (made.root / "prompts.parquet").read_bytes()

    first, again, other = written(1, TRAIN), written(1, TRAIN[::-1]), written(2, TRAIN)
    assert first == again
    assert first != other


def test_an_example_is_never_a_held_out_item_or_its_question_or_without_an_answer(
    build: Build, make_splits: Callable[..., Splits]
) -> None:
    train = [
        {"ticket_id": "i1", "subject": "X", "body": "x", "reply": "leak", "category": "a"},
        {"ticket_id": "t1", "subject": "LATE", "body": " where? ", "reply": "leak", "category": "b"},
        {"ticket_id": "t2", "subject": "Y", "body": "y", "reply": None, "category": "c"},
        {"ticket_id": "t3", "subject": "Z", "body": "z", "reply": "good", "category": "a"},
        {"ticket_id": "t4", "subject": "Z", "body": "z ", "reply": "good", "category": "b"},
    ]
    splits = make_splits(train=train)
    assert _examples(_messages(build("few_shot", splits=splits, n_examples=1))[0]) == ["good"]
    with pytest.raises(DataError, match="need 2 examples, and only 1 train"):
        build("few_shot", splits=splits, n_examples=2)


@pytest.mark.parametrize("arm", ["few_shot", "retrieval"])
def test_a_train_ticket_with_a_malformed_conversation_is_no_example(
    arm: str, build: Build, make_splits: Callable[..., Splits]
) -> None:
    malformed = [row | {"messages": '[{"role": "user", "content": "Where?"}]'} for row in TRAIN[1:]]
    for messages in _messages(build(arm, splits=make_splits(train=[TRAIN[0], *malformed]), n_examples=1)):
        assert _examples(messages) == ["reply 0"]


def test_few_shot_without_train_is_a_configuration_error(build: Build) -> None:
    with pytest.raises(ConfigError, match="needs the splits"):
        build("few_shot", n_examples=3)


def test_completion_prompts_are_text_with_examples_as_blocks(build: Build, make_splits: Callable[..., Splits]) -> None:
    form = {"prompt": PromptSpec(user="Text: {body}\nIntent:", answer=" {category}"), "format": "completion"}
    assert _rows(build("tuned", **form))[0]["text"] == "Text: Why?\nIntent:"
    splits = make_splits(train=TRAIN[:1])
    few = build("few_shot", **form, baseline_system="Name the intent.", splits=splits, n_examples=1)
    assert _rows(few)[0]["text"] == "Name the intent.\n\nText: body 0\nIntent: c0\n\nText: Why?\nIntent:"


def test_question_and_answer_of_an_example_never_run_together(build: Build, make_splits: Callable[..., Splits]) -> None:
    prompt = PromptSpec(user="{body}", answer="{category}")
    made = build("few_shot", prompt=prompt, format="completion", splits=make_splits(train=TRAIN[:1]), n_examples=1)
    assert _rows(made)[0]["text"] == "body 0\nc0\n\nWhy?\n"


@pytest.mark.parametrize(("form", "answer"), [("instruction", "card"), ("completion", " card")])
def test_the_reference_answer_has_the_form_it_has_in_training(
    form: Any, answer: str, make_items: Callable[..., EvalSet], tmp_path: Path
) -> None:
    items = make_items([{"ticket_id": "a", "body": "b", "answer": " card"}])
    made = build_prompts(items=items, arm="tuned", prompt=PROMPT, format=form, out=tmp_path)
    assert _rows(made)[0]["answer"] == answer


def test_only_trained_models_and_rag_show_passages(items: EvalSet, build: Build) -> None:
    file = items.root / "items.parquet"
    table = pq.read_table(file)
    pq.write_table(table.append_column("passages", [["[a.md]\nSoon.", "[b.md]\nSorry."]]), file)

    def shown(arm: str, prompt: PromptSpec) -> list[str]:
        return [turn["content"] for turn in _messages(build(arm, prompt=prompt))[0]]

    own = PROMPT.model_copy(update={"system": "House.\n{passages}"})
    assert shown("tuned", own) == ["House.\n[b.md]\nSorry.", "Bill: Why?"]
    assert shown("rag", own) == ["House.\n[b.md]\nSorry.", "Bill: Why?"]
    assert shown("rag", PROMPT) == ["House.", "[b.md]\nSorry.\n\nBill: Why?"]
    assert shown("zero_shot", own) == ["House.\n", "Bill: Why?"]

    talk = '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, '
    talk += '{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Sorry."}]'
    rows = pq.read_table(file)
    place = rows.column_names.index("messages")
    pq.write_table(rows.set_column(place, "messages", [[talk, talk]]), file)
    assert shown("rag", PROMPT) == ["House.", "Hi", "Hello", "[b.md]\nSorry.\n\nWhy?"]
